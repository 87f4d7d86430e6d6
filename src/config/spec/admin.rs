//! `[admin]`: the interface for administration.

use crate::config::declare::spec;
use crate::config::problem::Located;
use crate::config::word::FilePath;
use crate::listen::ListenAddress;
use crate::token::Token;

spec! {
    /// The interface for administration; without this table there is none. A change needs a restart.
    pub struct AdminSpec in "[admin]" {
        /// "IP:PORT" or "unix:/path". It speaks plaintext: others than this machine should not reach it.
        listen: Located<ListenAddress> = "127.0.0.1:9900";
        /// What whoever administers must know, 16 to 512 visible characters: "${TOLLGATE_ADMIN_TOKEN}".
        token: Option<Located<Token>>;
        /// A file that holds it; it counts before token.
        token_file: Option<Located<FilePath>>;
    }
}
