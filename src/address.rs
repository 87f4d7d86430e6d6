//! What the addresses of listeners and of backends have in common: host names and the paths of sockets.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The longest path of a Unix socket that every supported system takes, in bytes: 104 on BSD, with the final NUL.
const SOCKET_PATH: usize = 103;

/// Why a text is not the path of a Unix socket.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadSocketPath {
    #[error(r#""unix:{0}" has no absolute path; expected "unix:/path""#)]
    Relative(String),
    #[error(r#""unix:{0}" is not the path of a socket; expected at most {SOCKET_PATH} bytes"#)]
    Unusable(String),
}

/// What follows `unix:`, as a path that a socket can be bound to.
pub fn socket_path(text: &str) -> Result<PathBuf, BadSocketPath> {
    if !Path::new(text).is_absolute() {
        Err(BadSocketPath::Relative(text.to_owned()))
    } else if text.len() > SOCKET_PATH || text.contains('\0') {
        Err(BadSocketPath::Unusable(text.to_owned()))
    } else {
        Ok(PathBuf::from(text))
    }
}

/// Labels of 1 to 63 letters, digits, `-` and `_` (compose service names use it), 253 bytes in all (RFC 1035 2.3.4),
/// the last one not a number: `10.0.0.300` is a mistyped address, not a name (RFC 3696 2). A final dot is allowed.
pub fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A host name, an IPv4 address, or an IPv6 address in brackets; without port.
pub fn is_host(text: &str) -> bool {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    is_host_name(text)
        || text.parse::<Ipv4Addr>().is_ok()
        || bracketed.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_fits_every_system() {
        let fits = format!("/{}", "x".repeat(SOCKET_PATH - 1));
        assert!(socket_path(&fits).is_ok());
        let long = format!("{fits}x");
        assert_eq!(
            socket_path(&long),
            Err(BadSocketPath::Unusable(long.clone()))
        );
        for relative in ["", "run/x.sock"] {
            let wrong = BadSocketPath::Relative(relative.to_owned());
            assert_eq!(socket_path(relative), Err(wrong));
        }
    }
}
