//! Who is asking: the client address behind trusted proxies, and the request id.
