//! `[admin]` as its listener wants it, with the file it names.

use crate::config::Config;
use crate::config::problem::{Problems, why};
use crate::config::spec::AdminSpec;
use crate::listen::ListenAddress;
use crate::token::Token;

/// Where the interface for administration listens, and what opens it.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub listen: ListenAddress,
    pub token: Token,
}

/// `None` when there is no `[admin]`, or when its token cannot be read, which is noted.
pub fn admin_settings(config: &Config, problems: &mut Problems) -> Option<AdminSettings> {
    let spec = config.admin.as_ref().filter(|spec| spec.origin.sound)?;
    Some(AdminSettings {
        listen: spec.listen.value.clone(),
        token: token(spec, problems)?,
    })
}

fn token(spec: &AdminSpec, problems: &mut Problems) -> Option<Token> {
    let Some(file) = &spec.token_file else {
        return spec.token.as_ref().map(|token| token.value.clone());
    };
    let read = std::fs::read_to_string(&file.path);
    let token = match &read {
        Ok(text) => text
            .trim_end()
            .parse::<Token>()
            .map_err(|bad| format!("token file {}: {bad}", file.value)),
        Err(error) => Err(format!(
            "token file {} {}; expected a file that holds a token",
            file.value,
            why(error)
        )),
    };
    token.map_err(|message| problems.note(file, message)).ok()
}
