//! `tollgate certs`: a development certificate and the local authority that signs it.
//! For machines of developers; knows nothing of listeners or of how certificates are served.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::DnsName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::time::ASN1Time;

/// Always in the certificate, so that every way to reach this machine from itself works.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(86_400);
const AUTHORITY_DAYS: u32 = 3650;
/// Clocks of virtual machines and containers lag; a certificate from the future is refused.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// What `tollgate certs` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Directory to write to; the authority goes into its subdirectory ca/
    #[arg(long, default_value = "certs")]
    pub dir: PathBuf,
    /// Another name or address the certificate is for: shop.example, *.shop.example, 192.0.2.1
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Days the certificate is valid; Apple's systems accept no more than 825
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=825))]
    pub days: u32,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A `--host` that no certificate can be for.
    #[error("host {0:?} is not a name; expected a host name, *.name or an IP address")]
    Host(String),
    /// A file or directory of the output.
    #[error("{path}: cannot be {what}", path = path.display())]
    File {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// Only one of ca.crt and ca.key is there, or they cannot be used together.
    #[error("{directory}: {reason}; expected ca.crt and ca.key of one authority: put the other back, or remove both for a new one", directory = directory.display())]
    Authority {
        directory: PathBuf,
        reason: &'static str,
    },
    /// Generating or signing failed.
    #[error("the certificate cannot be made")]
    Generate(#[from] rcgen::Error),
}

/// What was made. Displays as the page that tells the developer what to do with it.
#[derive(Debug)]
pub struct Written {
    pub authority: PathBuf,
    pub authority_key: PathBuf,
    /// False if an authority from an earlier run was used again.
    pub is_new_authority: bool,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Every name and address the certificate is for.
    pub names: Vec<String>,
    pub days: u32,
}

/// Makes a server certificate, and before it the authority where there is none yet.
///
/// The pair is called after the first host, or `localhost`. An earlier pair of that name is replaced in
/// one step, which a running gateway picks up. Keys are P-256, readable by their owner alone.
pub fn make(options: &Options) -> Result<Written, CertsError> {
    let mut names: Vec<String> = Vec::new();
    let own = OWN_NAMES.map(str::to_owned);
    for host in options.hosts.iter().map(|host| host.to_ascii_lowercase()) {
        if !is_nameable(&host) {
            return Err(CertsError::Host(host));
        }
        names.push(host);
    }
    let stem = names.first().map_or("localhost", String::as_str);
    // ':' and '*' are trouble in file names.
    let stem = stem.replace('*', "_wildcard").replace(':', "-");
    names.extend(own);
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));

    let directory = &options.dir;
    make_directory(directory, 0o755)?;
    let ignore = directory.join(".gitignore");
    if !ignore.exists() {
        write(&ignore, "*\n!.gitignore\n!README.md\n", 0o644)?;
    }
    let (authority, is_new_authority) = authority(&directory.join("ca"))?;
    let key = KeyPair::generate()?;
    let certificate = server_params(&names, options.days)?.signed_by(&key, &authority)?;

    let written = Written {
        authority: directory.join("ca").join("ca.crt"),
        authority_key: directory.join("ca").join("ca.key"),
        is_new_authority,
        certificate: directory.join(format!("{stem}.crt")),
        key: directory.join(format!("{stem}.key")),
        names,
        days: options.days,
    };
    write(&written.key, &key.serialize_pem(), 0o600)?;
    write(&written.certificate, &certificate.pem(), 0o644)?;
    Ok(written)
}

fn is_nameable(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_name = DnsName::try_from(name).is_ok() && !name.ends_with('.');
    is_name || host.parse::<IpAddr>().is_ok()
}

fn server_params(names: &[String], days: u32) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let common_name = format!("{} (Tollgate development)", names[0]);
    // X.520 bounds a common name at 64 characters; nobody reads it beside the names above.
    let common_name: String = common_name.chars().take(64).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, days);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.unwrap_or_default();
    params.not_before = now - CLOCK_SLACK;
    params.not_after = now - CLOCK_SLACK + DAY * days;
}

/// The authority of an earlier run, or a new one; true if it is new.
fn authority(directory: &Path) -> Result<(Issuer<'static, KeyPair>, bool), CertsError> {
    let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
    let unusable = |reason| CertsError::Authority {
        directory: directory.to_path_buf(),
        reason,
    };
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let issuer = issuer(&read(&certificate)?, &read(&key)?).map_err(unusable)?;
            Ok((issuer, false))
        }
        (false, false) => {
            make_directory(directory, 0o700)?;
            let pair = KeyPair::generate()?;
            let params = authority_params(&new_authority_name());
            write(&key, &pair.serialize_pem(), 0o600)?;
            write(&certificate, &params.self_signed(&pair)?.pem(), 0o644)?;
            Ok((Issuer::new(params, pair), true))
        }
        (true, false) => Err(unusable("has no ca.key")),
        (false, true) => Err(unusable("has no ca.crt")),
    }
}

/// Reads back an authority that [`authority`] wrote: its name and key are all that signing needs.
fn issuer(certificate: &str, key: &str) -> Result<Issuer<'static, KeyPair>, &'static str> {
    let key = KeyPair::from_pem(key).map_err(|_| "ca.key is not a private key")?;
    let (_, pem) =
        parse_x509_pem(certificate.as_bytes()).map_err(|_| "ca.crt is not a certificate")?;
    let certificate = pem
        .parse_x509()
        .map_err(|_| "ca.crt is not a certificate")?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("ca.key is not the key of ca.crt");
    }
    if certificate.validity().not_after < ASN1Time::now() {
        return Err("ca.crt has expired");
    }
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok());
    let name = name.ok_or("ca.crt was not made by tollgate certs")?;
    Ok(Issuer::new(authority_params(name), key))
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // No intermediate authorities: it signs servers, and nothing else.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    params
}

/// Different on every machine: trust stores tell authorities apart by name.
fn new_authority_name() -> String {
    let id = uuid::Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext));
    let tail = id.simple().to_string().split_off(24);
    format!("Tollgate development authority {tail}")
}

fn make_directory(path: &Path, mode: u32) -> Result<(), CertsError> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.map_err(|source| CertsError::File {
        path: path.to_path_buf(),
        what: "made",
        source,
    })
}

fn read(path: &Path) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|source| CertsError::File {
        path: path.to_path_buf(),
        what: "read",
        source,
    })
}

/// Writes beside the file and renames: a reader sees the old file or the new, and a key is never
/// readable by others, not even while it is written.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let name = path.file_name().expect("a file of ours has a name");
    let beside = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    let written = (|| {
        // Left by a run that was killed; its mode would stay.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|source| CertsError::File {
        path: path.to_path_buf(),
        what: "written",
        source,
    })
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ca = self.authority.display();
        let origin = match self.is_new_authority {
            true => "new, valid for ten years",
            false => "used again",
        };
        writeln!(f, "authority    {ca} ({origin})")?;
        writeln!(f, "certificate  {}", self.certificate.display())?;
        writeln!(f, "             for {}", self.names.join(", "))?;
        writeln!(f, "             valid for {} days", self.days)?;
        writeln!(f, "key          {} (mode 0600)", self.key.display())?;
        writeln!(f)?;
        writeln!(f, "try it once  curl --cacert {ca} https://localhost:8443/")?;
        writeln!(f)?;
        writeln!(f, "trust it on this machine")?;
        writeln!(f, "  Debian, Ubuntu")?;
        writeln!(
            f,
            "    sudo cp {ca} /usr/local/share/ca-certificates/tollgate.crt"
        )?;
        writeln!(f, "    sudo update-ca-certificates")?;
        writeln!(f, "  Fedora, Arch")?;
        writeln!(f, "    sudo trust anchor {ca}")?;
        writeln!(f, "  macOS")?;
        writeln!(
            f,
            "    security add-trusted-cert -k ~/Library/Keychains/login.keychain-db \\\n      {ca}"
        )?;
        writeln!(f, "  Firefox, Chrome on Linux")?;
        writeln!(f, "    import {ca} under Certificates, Authorities")?;
        writeln!(f)?;
        writeln!(
            f,
            "Whoever holds {} can make certificates\nthat this machine then believes. Keep it here; never commit it.",
            self.authority_key.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{RootCertStore, crypto::ring};

    use super::*;
    use crate::certificates::CertificateStore;

    fn options(dir: &Path, hosts: &[&str]) -> Options {
        Options {
            dir: dir.join("certs"),
            hosts: hosts.iter().map(|host| host.to_string()).collect(),
            days: 825,
        }
    }

    fn is_believed(written: &Written, host: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&written.authority).unwrap())
            .unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let leaf = CertificateDer::from_pem_file(&written.certificate).unwrap();
        let host = ServerName::try_from(host.to_owned()).unwrap();
        let verifier = verifier.build().unwrap();
        verifier
            .verify_server_cert(&leaf, &[], &host, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn a_client_that_trusts_the_authority_believes_the_certificate_under_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["Shop.example", "*.shop.example", "192.0.2.1"];
        let written = make(&options(dir.path(), &hosts)).unwrap();
        for host in [
            "localhost",
            "127.0.0.1",
            "::1",
            "shop.example",
            "a.shop.example",
            "192.0.2.1",
        ] {
            assert!(is_believed(&written, host), "{host}");
        }
        assert!(!is_believed(&written, "other.example"));
        assert!(written.certificate.ends_with("certs/shop.example.crt"));
    }

    #[test]
    fn a_second_run_uses_the_authority_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = make(&options(dir.path(), &[])).unwrap();
        let authority = fs::read(&first.authority).unwrap();
        let second = make(&options(dir.path(), &["shop.example"])).unwrap();
        assert!(first.is_new_authority && !second.is_new_authority);
        assert_eq!(fs::read(&second.authority).unwrap(), authority);
        assert!(is_believed(&second, "shop.example"));
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let written = make(&options(dir.path(), &[])).unwrap();
        for key in [&written.key, &written.authority_key] {
            let mode = fs::metadata(key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn the_authority_is_never_served() {
        let dir = tempfile::tempdir().unwrap();
        make(&options(dir.path(), &[])).unwrap();
        let store = CertificateStore::load(&dir.path().join("certs"), None).unwrap();
        let names: Vec<_> = store.names().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["localhost"]);
    }

    #[test]
    fn half_an_authority_is_reported_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = make(&options(dir.path(), &[])).unwrap();
        fs::remove_file(&first.authority_key).unwrap();
        let error = make(&options(dir.path(), &[])).unwrap_err();
        assert!(error.to_string().contains("has no ca.key"), "{error}");
        assert!(first.authority.exists() && !first.authority_key.exists());
    }

    #[test]
    fn a_host_that_is_no_name_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for host in [
            "../evil",
            "a b",
            "",
            "*",
            "*.",
            "https://shop.example",
            "shop.example.",
        ] {
            let refused = make(&options(dir.path(), &[host]));
            assert!(matches!(refused, Err(CertsError::Host(_))), "{host:?}");
        }
        assert!(!dir.path().join("certs").exists());
    }

    #[test]
    fn the_page_fits_a_terminal() {
        let written = make(&options(tempfile::tempdir().unwrap().path(), &[])).unwrap();
        let short = Written {
            authority: "certs/ca/ca.crt".into(),
            authority_key: "certs/ca/ca.key".into(),
            certificate: "certs/localhost.crt".into(),
            key: "certs/localhost.key".into(),
            ..written
        };
        let page = short.to_string();
        assert!(page.lines().all(|line| line.len() <= 80), "{page}");
        assert!(page.contains("curl --cacert certs/ca/ca.crt"), "{page}");
    }
}
