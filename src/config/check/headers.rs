//! Header policies: names that are taken, and fields that no policy may touch.

use http::{HeaderName, header};

use crate::config::problem::{Located, Problems};
use crate::config::spec::{Config, HeadersSpec};
use crate::config::word::PresetSpec;

/// Fields that frame a message or belong to one connection (RFC 9110 section 7.6.1, RFC 9112 section 6).
fn is_of_the_connection(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ]
    .contains(name)
}

pub fn policies(config: &Config, problems: &mut Problems) {
    for (name, policy) in &config.headers {
        if name.parse::<PresetSpec>().is_ok() {
            problems.note(policy, format!("header policy {name:?} is built in; expected another name, with preset = {name:?} to start from it"));
        }
        for field in fields(policy).filter(|field| is_of_the_connection(field)) {
            let message = format!(
                "field {:?} frames the message or belongs to its connection; no policy may touch it",
                field.as_str()
            );
            problems.note(field, message);
        }
        for field in policy
            .request_set
            .0
            .iter()
            .map(|(name, _)| name)
            .chain(&policy.request_remove)
        {
            if field.value == header::HOST {
                problems.note(
                    field,
                    r#"field "host" is set by the upstream; expected host = "…" there"#,
                );
            }
        }
    }
}

fn fields(policy: &HeadersSpec) -> impl Iterator<Item = &Located<HeaderName>> {
    let written = [
        &policy.set,
        &policy.default,
        &policy.add,
        &policy.request_set,
    ];
    written
        .into_iter()
        .flat_map(|fields| fields.0.iter().map(|(name, _)| name))
        .chain(&policy.remove)
        .chain(&policy.request_remove)
}
