//! The certificates of clients: whose are believed, and who a client is by its own.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::CertificateError;
use crate::word::choice;

choice! {
    /// Whether clients must show a certificate.
    #[derive(Default)]
    pub enum ClientCertificates: "demand of client certificates" {
        #[default]
        Required = "required",
        /// One that is shown must be good.
        Optional = "optional",
    }
}

/// Believes clients whose certificate one of the authorities in this PEM file has signed.
pub fn client_verifier(
    authorities: &Path,
    demand: ClientCertificates,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let none = |source| CertificateError::NoCertificate {
        file: authorities.to_path_buf(),
        source,
    };
    let unusable = |source| CertificateError::NoAuthority {
        file: authorities.to_path_buf(),
        source,
    };
    let read = CertificateDer::pem_file_iter(authorities).and_then(Iterator::collect);
    let read: Vec<CertificateDer<'static>> = read.map_err(|source| match source {
        pem::Error::Io(source) => CertificateError::Unreadable {
            file: authorities.to_path_buf(),
            source,
        },
        source => none(Some(source)),
    })?;
    if read.is_empty() {
        return Err(none(None));
    }
    let mut roots = RootCertStore::empty();
    for authority in read {
        roots.add(authority).map_err(unusable)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let builder = match demand {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    Ok(builder
        .build()
        .expect("there are authorities, and no revocation lists"))
}

/// The subject of a certificate as RFC 4514 writes it: `CN=ada,O=Example`. No two subjects are the same text. `None` if
/// it has none, or one that is no text.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut parts = Vec::new();
    for part in certificate.subject().iter_rdn() {
        let attributes = part.iter().map(attribute).collect::<Option<Vec<_>>>()?;
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let id = attribute.attr_type().to_id_string();
    let name = match &*id {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        other => other,
    };
    let value = escaped(attribute.as_str().ok()?);
    Some(format!("{name}={value}"))
}

/// RFC 4514 2.4.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (place, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' if place == 0 => text.push_str("\\#"),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            c if c.is_ascii_control() => text.push_str(&format!("\\{:02X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn subject_of(parts: &[(DnType, &str)]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        subject(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_subject_is_written_as_directories_write_it() {
        let ada = [
            (DnType::OrganizationName, "Example, Inc."),
            (DnType::CommonName, "ada"),
        ];
        assert_eq!(
            subject_of(&ada).as_deref(),
            Some(r"CN=ada,O=Example\, Inc.")
        );
        assert_eq!(subject_of(&[]), None);
    }

    #[test]
    fn a_name_that_reads_like_two_is_not_both() {
        let one = subject_of(&[(DnType::CommonName, "ada,O=Example")]);
        let both = subject_of(&[
            (DnType::OrganizationName, "Example"),
            (DnType::CommonName, "ada"),
        ]);
        assert_ne!(one, both);
        assert_eq!(escaped(" #a\n "), r"\ #a\0A\ ");
        assert_eq!(escaped("#a"), r"\#a");
    }
}
