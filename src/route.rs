//! Host, method and longest path prefix to one route.
