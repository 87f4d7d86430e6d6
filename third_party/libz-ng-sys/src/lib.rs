//! The zlib interface that `flate2` expects of `libz-ng-sys`, from stock zlib.
//!
//! pingora-core switches on flate2's `zlib-ng`, whose `-sys` crate builds with CMake. Tollgate
//! promises to build with a Rust toolchain and a C compiler alone; `[patch.crates-io]` puts this
//! crate in its place. Both export the same names and types.
pub use libz_sys::*;
