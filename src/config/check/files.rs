//! The files that a configuration names: there, readable, and of the right kind. Knows nothing of how they are used.

use std::fs;
use std::io;
use std::path::Path;

use super::pem::Directory;
use crate::config::problem::{Located, Positioned, Problems};
use crate::config::spec::{Config, ListenSpec, TlsSpec};
use crate::config::word::FilePath;
use crate::telemetry::Output;
use crate::word::unknown;

/// Largest error page that is read.
const PAGE: u64 = 1 << 20;

/// Every file and directory that must be right before the gateway can start.
pub fn files(config: &Config, problems: &mut Problems) {
    for listener in &config.server.listen {
        certificates(listener, problems);
    }
    for tls in config
        .upstreams
        .values()
        .filter_map(|upstream| upstream.tls.as_ref())
    {
        client_identity(tls, problems);
    }
    if let Some(page) = &config.errors.page {
        error_page(page, problems);
    }
    if let Some(pid_file) = &config.server.pid_file {
        parent("pid_file", pid_file, &pid_file.path, problems);
    }
    if let Output::File(file) = &config.log.output.value {
        parent("log output", &config.log.output, file, problems);
    }
}

/// Certificates that clients will complain of, at the time `now` in seconds since 1970.
pub fn expiry(config: &Config, now: i64, warnings: &mut Problems) {
    for directory in config
        .server
        .listen
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
    {
        let Ok(found) = Directory::read(&directory.path) else {
            continue;
        };
        for pair in found.pairs {
            if let Ok(pair) = pair.check()
                && let Some(remark) = pair.validity_at(now)
            {
                warnings.note(
                    directory,
                    format!(
                        "certificate {:?} of {} {remark}",
                        pair.name, directory.value
                    ),
                );
            }
        }
    }
}

fn certificates(listener: &ListenSpec, problems: &mut Problems) {
    let Some(directory) = &listener.tls else {
        return;
    };
    let found = match Directory::read(&directory.path) {
        Ok(found) => found,
        Err(error) => {
            let message = format!(
                "certificate directory {} {}; expected a directory of NAME.crt and NAME.key",
                directory.value,
                why(&error)
            );
            problems.note(directory, message);
            return;
        }
    };
    let mut names = Vec::new();
    let mut broken = false;
    for pair in found.pairs {
        match pair.check() {
            Ok(pair) if pair.has_key => names.push(pair.name),
            // The certificate of an authority, beside the pairs that it signed.
            Ok(_) => {}
            Err(wrong) => {
                broken = true;
                problems.note(
                    directory,
                    format!("certificate directory {}: {wrong}", directory.value),
                );
            }
        }
    }
    if names.is_empty() && !broken {
        let message = format!(
            "certificate directory {} holds no pair; expected NAME.crt or NAME.pem with NAME.key",
            directory.value
        );
        problems.note(directory, message);
    }
    if let Some(name) = listener
        .default_certificate
        .as_ref()
        .filter(|name| !names.contains(name) && !broken)
    {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = unknown(
            "certificate",
            name,
            &format!("in {}", directory.value),
            &names,
        );
        problems.note(name, message);
    }
}

fn client_identity(tls: &TlsSpec, problems: &mut Problems) {
    if let Some(ca) = &tls.ca
        && let Some(text) = text("ca", ca, problems)
        && super::pem::chain(&text).is_none()
    {
        problems.note(
            ca,
            format!("ca {} holds no certificate; expected PEM", ca.value),
        );
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        let texts = (
            text("certificate", certificate, problems),
            text("key", key, problems),
        );
        if let (Some(chain), Some(private)) = texts
            && let Err(wrong) =
                super::pem::fit(&certificate.written, &chain, &key.written, &private)
        {
            problems.note(certificate, wrong);
        }
    }
}

/// The content of a file that must be there.
fn text(what: &str, file: &Located<FilePath>, problems: &mut Problems) -> Option<Vec<u8>> {
    fs::read(&file.path)
        .map_err(|error| {
            problems.note(
                file,
                format!("{what} {} {}; expected a PEM file", file.value, why(&error)),
            )
        })
        .ok()
}

fn error_page(page: &Located<FilePath>, problems: &mut Problems) {
    match fs::metadata(&page.path)
        .and_then(|found| fs::read(&page.path).map(|bytes| (found, bytes)))
    {
        Err(error) => problems.note(
            page,
            format!(
                "error page {} {}; expected an HTML file",
                page.value,
                why(&error)
            ),
        ),
        Ok((found, _)) if found.len() > PAGE => {
            problems.note(
                page,
                format!(
                    "error page {} has {} bytes; expected at most 1 MiB",
                    page.value,
                    found.len()
                ),
            );
        }
        Ok((_, bytes)) if std::str::from_utf8(&bytes).is_err() => {
            problems.note(
                page,
                format!(
                    "error page {} is not UTF-8; expected an HTML file in UTF-8",
                    page.value
                ),
            );
        }
        Ok(_) => {}
    }
}

/// A file that the gateway will write needs its directory.
fn parent(what: &str, place: &impl Positioned, file: &Path, problems: &mut Problems) {
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !directory.is_dir() {
        problems.note(
            place,
            format!("{what} {file:?} has no directory; expected its directory to exist"),
        );
    }
}

/// What the system said, in a few words that do not depend on the system.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        io::ErrorKind::NotADirectory => "is not a directory".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => format!("cannot be read ({error})"),
    }
}
