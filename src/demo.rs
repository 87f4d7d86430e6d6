//! `tollgate demo`: three small backends and a gateway over them.
