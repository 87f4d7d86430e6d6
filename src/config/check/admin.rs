//! Who may administer, and from where.

use crate::config::problem::Problems;
use crate::config::spec::Config;
use crate::listen::ListenAddress;

/// Without a token the gateway would obey anybody.
pub fn token(config: &Config, problems: &mut Problems) {
    let Some(admin) = config.admin.as_ref().filter(|admin| admin.origin.sound) else {
        return;
    };
    if admin.token.is_none() && admin.token_file.is_none() {
        problems.note(
            admin,
            "[admin] without a token; expected token or token_file",
        );
    }
}

/// The token would cross the network as it is.
pub fn exposed(config: &Config, warnings: &mut Problems) {
    let Some(admin) = &config.admin else { return };
    if let ListenAddress::Tcp(address) = &*admin.listen
        && !address.ip().is_loopback()
    {
        let message = format!(
            "the interface for administration listens on {address} in plaintext; expected a loopback address or a Unix socket"
        );
        warnings.note(&admin.listen, message);
    }
}
