//! `tollgate explain`: which route and policies a request would meet.
