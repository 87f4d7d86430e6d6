//! Host and path in their one canonical form (RFC 3986 section 6, RFC 9110 section 4.2.3).
//!
//! The form is computed once where a request enters, and the same value is routed, limited, cached
//! and forwarded. Knows nothing of HTTP versions, fields or routes.

pub mod host;
pub mod path;
pub mod prefix;
pub mod query;
mod segment;
pub mod url;

pub use host::{Authority, BadHost, Host};
pub use path::{BadPath, PathParameters, PathRules, Target};
pub use prefix::{BadPathPrefix, PathPrefix};
pub use url::{BadUrl, Url};
