//! Host and path in their one canonical form (RFC 3986 section 6, RFC 9110 section 4.2.3).
