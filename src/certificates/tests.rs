use std::fs;
use std::os::unix::fs::symlink;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, RootCertStore, ServerConnection};

use super::*;

/// A directory of self-signed pairs, gone when dropped.
struct Directory(tempfile::TempDir);

impl Directory {
    fn with(pairs: &[(&str, &[&str])]) -> Self {
        let directory = Directory(tempfile::tempdir().unwrap());
        for (name, subjects) in pairs {
            directory.put(name, subjects);
        }
        directory
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, name: &str, subjects: &[&str]) {
        self.put_params(name, params(subjects));
    }

    fn put_params(&self, name: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, file: &str, text: &str) {
        // By renaming: rewritten in place within one tick of the disk's clock, a file of the same
        // length would have the same stamp.
        let beside = self.path().join(".new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.path().join(file)).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).unwrap();
    }

    fn load(&self) -> Result<CertificateStore, CertificateError> {
        self.load_with(None)
    }

    /// The first thing that is wrong, if any.
    fn load_with(&self, default: Option<&str>) -> Result<CertificateStore, CertificateError> {
        CertificateStore::load(self.path(), default).map_err(|mut errors| errors.remove(0))
    }

    /// What is wrong, without the directory it is in.
    fn complaint(&self) -> String {
        let error = self.load().unwrap_err().to_string();
        error.replace(&format!("{}/", self.path().display()), "")
    }
}

fn params(subjects: &[&str]) -> CertificateParams {
    let subjects: Vec<String> = subjects.iter().map(|name| name.to_string()).collect();
    CertificateParams::new(subjects).unwrap()
}

fn served(store: &CertificateStore, host: Option<&str>) -> Vec<u8> {
    let chosen = store.choose(host, &[SignatureScheme::ECDSA_NISTP256_SHA256]);
    chosen.cert[0].to_vec()
}

#[test]
fn a_name_is_found_exactly_then_by_wildcard_then_as_the_default() {
    let directory = Directory::with(&[
        ("a", &["default.example"]),
        ("b", &["shop.example", "127.0.0.1"]),
        ("c", &["*.shop.example"]),
        ("d", &["admin.shop.example"]),
    ]);
    let store = directory.load().unwrap();
    for (host, name) in [
        (Some("shop.example"), "b"),
        (Some("SHOP.Example"), "b"),
        (Some("shop.example."), "b"),
        (Some("127.0.0.1"), "b"),
        (Some("www.shop.example"), "c"),
        (Some("WWW.SHOP.EXAMPLE"), "c"),
        (Some("admin.shop.example"), "d"),
        (Some("a.b.shop.example"), "a"),
        (Some(".shop.example"), "a"),
        (Some("other.example"), "a"),
        (None, "a"),
    ] {
        assert_eq!(store.name_for(host), name, "{host:?}");
    }
}

#[test]
fn the_default_may_be_named() {
    let directory = Directory::with(&[("a", &["a.example"]), ("b", &["b.example"])]);
    let store = CertificateStore::load(directory.path(), Some("b")).unwrap();
    assert_eq!(store.name_for(None), "b");
    let text = directory.load_with(Some("c")).unwrap_err().to_string();
    assert!(text.starts_with(r#"unknown certificate "c""#) && text.ends_with(": a, b"));
}

#[test]
fn the_common_name_is_not_a_name() {
    let directory = Directory::with(&[("a", &["a.example"])]);
    let mut nameless = params(&[]);
    nameless
        .distinguished_name
        .push(rcgen::DnType::CommonName, "b.example");
    directory.put_params("b", nameless);
    assert_eq!(directory.load().unwrap().name_for(Some("b.example")), "a");
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    let directory = Directory::with(&[]);
    let text = directory.load().unwrap_err().to_string();
    assert!(text.contains("expected at least one pair NAME.crt (or NAME.pem) and NAME.key"));

    directory.put("a", &["a.example"]);
    directory.remove("a.crt");
    assert_eq!(
        directory.complaint(),
        "a.key: has no certificate; expected it in a.crt"
    );

    directory.put("a", &["a.example"]);
    directory.remove("a.key");
    assert_eq!(
        directory.complaint(),
        "a.crt: has no key; expected it in a.key"
    );

    directory.put("a", &["a.example"]);
    let other = KeyPair::generate().unwrap();
    directory.write("a.key", &other.serialize_pem());
    assert!(
        directory
            .complaint()
            .starts_with("a.crt: is not for the key in a.key; expected")
    );

    directory.write(
        "a.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(
        directory
            .complaint()
            .starts_with("a.key: no usable private key in it; expected unencrypted PEM")
    );

    directory.put("a", &["a.example"]);
    directory.write("a.crt", "not a certificate");
    assert!(
        directory
            .complaint()
            .starts_with("a.crt: no certificate in it; expected PEM")
    );

    directory.write(
        "a.crt",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    assert!(
        directory
            .complaint()
            .starts_with("a.crt: the first certificate is malformed; expected")
    );

    directory.put("a", &["a.example"]);
    directory.write("a.pem", "");
    assert!(
        directory
            .complaint()
            .starts_with("a.crt and a.pem: both are for the same key")
    );

    let away = CertificateStore::load(&directory.path().join("away"), None).unwrap_err();
    assert!(matches!(away[..], [CertificateError::Directory { .. }]));
}

#[test]
fn an_authority_beside_the_pair_and_files_of_other_kinds_are_passed_over() {
    let directory = Directory::with(&[("tls", &["shop.example"])]);
    let mut authority = params(&[]);
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    directory.put_params("ca", authority);
    directory.remove("ca.key");
    directory.write("README.md", "");
    directory.write(".hidden.crt", "");
    fs::create_dir(directory.path().join("dir.crt")).unwrap();
    symlink("/nowhere/at/all", directory.path().join("dangling.key")).unwrap();
    assert_eq!(directory.load().unwrap().names().len(), 1);
}

#[test]
fn an_expired_certificate_is_served_but_never_before_a_valid_one() {
    let mut expired = params(&["shop.example"]);
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let directory = Directory::with(&[]);
    directory.put_params("a", expired);
    let store = directory.load().unwrap();
    assert_eq!(store.name_for(Some("shop.example")), "a");
    directory.put("b", &["shop.example"]);
    store.refresh().unwrap();
    assert_eq!(store.name_for(Some("shop.example")), "b");
}

#[test]
fn a_replaced_pair_is_served_from_the_next_handshake_on() {
    let directory = Directory::with(&[("a", &["a.example"]), ("b", &["b.example"])]);
    let store = directory.load().unwrap();
    let (a, b) = (
        served(&store, Some("a.example")),
        served(&store, Some("b.example")),
    );
    assert!(store.refresh().unwrap().is_nothing());
    directory.put("b", &["b.example"]);
    assert_eq!(store.refresh().unwrap().updated, ["b"]);
    assert_eq!(served(&store, Some("a.example")), a);
    assert_ne!(served(&store, Some("b.example")), b);
    assert!(store.refresh().unwrap().is_nothing());
}

#[test]
fn pairs_come_and_go_without_a_restart() {
    let directory = Directory::with(&[("a", &["a.example"])]);
    let store = directory.load().unwrap();
    directory.put("b", &["b.example"]);
    assert_eq!(store.refresh().unwrap().updated, ["b"]);
    assert_eq!(store.name_for(Some("b.example")), "b");
    directory.remove("b.crt");
    directory.remove("b.key");
    assert_eq!(store.refresh().unwrap().removed, ["b"]);
    assert_eq!(store.name_for(Some("b.example")), "a");
}

#[test]
fn a_broken_pair_is_refused_once_while_the_old_is_kept_and_the_others_update() {
    let directory = Directory::with(&[("a", &["a.example"]), ("b", &["b.example"])]);
    let store = directory.load().unwrap();
    let (a, b) = (
        served(&store, Some("a.example")),
        served(&store, Some("b.example")),
    );
    directory.put("a", &["a.example"]);
    directory.write("b.key", "half a ke");
    let changed = store.refresh().unwrap();
    assert_eq!(changed.updated, ["a"]);
    assert_eq!(changed.refused.len(), 1);
    assert_ne!(served(&store, Some("a.example")), a);
    assert_eq!(served(&store, Some("b.example")), b);
    assert!(store.refresh().unwrap().is_nothing());

    directory.remove("b.key");
    assert_eq!(store.refresh().unwrap().refused.len(), 1);
    assert_eq!(served(&store, Some("b.example")), b);

    directory.put("b", &["b.example"]);
    assert_eq!(store.refresh().unwrap().updated, ["b"]);
    assert_ne!(served(&store, Some("b.example")), b);
}

#[test]
fn a_pair_put_back_as_it_was_is_served_again() {
    let directory = Directory::with(&[("a", &["a.example"])]);
    let store = directory.load().unwrap();
    let key = fs::read_to_string(directory.path().join("a.key")).unwrap();
    directory.write("a.key", "broken");
    assert_eq!(store.refresh().unwrap().refused.len(), 1);
    directory.write("a.key", &key);
    assert_eq!(store.refresh().unwrap().updated, ["a"]);
    assert!(store.refresh().unwrap().is_nothing());
}

#[test]
fn an_emptied_or_vanished_directory_changes_nothing() {
    let directory = Directory::with(&[("a", &["a.example"])]);
    let store = directory.load().unwrap();
    let a = served(&store, Some("a.example"));
    directory.remove("a.crt");
    directory.remove("a.key");
    assert!(matches!(
        store.refresh(),
        Err(CertificateError::Empty { .. })
    ));
    assert_eq!(served(&store, Some("a.example")), a);
    fs::remove_dir_all(directory.path()).unwrap();
    assert!(matches!(
        store.refresh(),
        Err(CertificateError::Directory { .. })
    ));
    assert_eq!(served(&store, Some("a.example")), a);
    fs::create_dir(directory.path()).unwrap();
}

#[test]
fn a_named_default_that_is_gone_is_kept_and_the_others_still_update() {
    let directory = Directory::with(&[("a", &["a.example"]), ("b", &["b.example"])]);
    let store = CertificateStore::load(directory.path(), Some("a")).unwrap();
    directory.remove("a.crt");
    directory.remove("a.key");
    directory.put("b", &["b.example"]);
    let changed = store.refresh().unwrap();
    assert_eq!(
        (changed.updated, changed.removed.len()),
        (vec!["b".to_owned()], 0)
    );
    assert!(matches!(
        changed.refused[..],
        [CertificateError::Default { .. }]
    ));
    assert!(store.refresh().unwrap().is_nothing());
    assert_eq!(store.name_for(None), "a");
    directory.put("a", &["a.example"]);
    assert_eq!(store.refresh().unwrap().updated, ["a"]);
}

#[test]
fn a_swapped_link_is_seen_as_kubernetes_and_certbot_swap_it() {
    let directory = Directory::with(&[]);
    let (one, two) = (
        Directory::with(&[("tls", &["shop.example"])]),
        Directory::with(&[("tls", &["shop.example"])]),
    );
    let data = directory.path().join("..data");
    symlink(one.path(), &data).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), directory.path().join(file)).unwrap();
    }
    let store = directory.load().unwrap();
    let before = served(&store, Some("shop.example"));
    let next = directory.path().join("..data_tmp");
    symlink(two.path(), &next).unwrap();
    fs::rename(&next, &data).unwrap();
    assert_eq!(store.refresh().unwrap().updated, ["tls"]);
    assert_ne!(served(&store, Some("shop.example")), before);
}

#[test]
fn keys_are_read_in_every_usual_form() {
    let directory = Directory::with(&[]);
    for (algorithm, name) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "p256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "p384"),
        (&rcgen::PKCS_ED25519, "ed25519"),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let subject = format!("{name}.example");
        let certificate = params(&[&subject]).self_signed(&key).unwrap();
        directory.write(&format!("{name}.pem"), &certificate.pem());
        directory.write(&format!("{name}.key"), &key.serialize_pem());
    }
    assert_eq!(directory.load().unwrap().names().len(), 3);
}

#[test]
fn a_key_in_the_older_elliptic_curve_form_is_read() {
    let directory = Directory::with(&[("a", &["a.example"])]);
    let key = KeyPair::from_pem(&fs::read_to_string(directory.path().join("a.key")).unwrap());
    // The ECPrivateKey of SEC 1 is the last field of a P-256 key in PKCS#8, from byte 29.
    let sec1 = pem_of("EC PRIVATE KEY", &key.unwrap().serialize_der()[29..]);
    directory.write("a.key", &sec1);
    assert_eq!(directory.load().unwrap().name_for(Some("a.example")), "a");
}

/// PEM of a DER that has no writer of its own here. Unwrapped base64, which PEM readers take.
fn pem_of(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for chunk in der.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, &byte| word << 8 | u32::from(byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (word >> (18 - 6 * place)) as usize & 63;
            let is_padding = place > chunk.len();
            text.push(if is_padding {
                '='
            } else {
                ALPHABET[sextet].into()
            });
        }
    }
    text + &format!("\n-----END {label}-----\n")
}

/// Shakes hands in memory; the ALPN protocol and version agreed on, or the error.
fn shake(
    server: Arc<ServerConfig>,
    root: &[u8],
    alpn: &[&str],
) -> Result<(Option<Vec<u8>>, rustls::ProtocolVersion), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("shop.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let version = client.protocol_version().unwrap();
    Ok((client.alpn_protocol().map(<[u8]>::to_vec), version))
}

#[test]
fn a_client_shakes_hands_under_its_name_and_agrees_on_a_protocol() {
    let directory = Directory::with(&[("a", &["a.example"]), ("b", &["shop.example"])]);
    let store = Arc::new(directory.load().unwrap());
    let root = served(&store, Some("shop.example"));
    let both = server_config(store.clone(), true, MinTls::V1_2, None);
    let (alpn, version) = shake(both.clone(), &root, &["http/1.1", "h2"]).unwrap();
    assert_eq!(alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(version, rustls::ProtocolVersion::TLSv1_3);
    assert_eq!(shake(both, &root, &[]).unwrap().0, None);

    let old = server_config(store, false, MinTls::V1_3, None);
    let (alpn, _) = shake(old.clone(), &root, &["h2", "http/1.1"]).unwrap();
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    // RFC 7301 section 3.2: no protocol in common ends the handshake.
    assert!(shake(old, &root, &["h2"]).is_err());
}

#[tokio::test]
async fn the_watching_task_takes_in_changes_and_ends_with_the_store() {
    let directory = Directory::with(&[("a", &["a.example"])]);
    let store = Arc::new(directory.load().unwrap());
    let watching = tokio::spawn(watch(Arc::downgrade(&store), Duration::from_millis(1)));
    directory.put("b", &["b.example"]);
    while store.names().len() < 2 {
        tokio::task::yield_now().await;
    }
    drop(store);
    watching.await.unwrap();
}

#[test]
fn an_unknown_tls_version_names_the_known_ones() {
    assert_eq!("1.3".parse(), Ok(MinTls::V1_3));
    let error = "1.1".parse::<MinTls>().unwrap_err().to_string();
    assert!(error.starts_with(r#"unknown TLS version "1.1""#) && error.ends_with("1.2, 1.3"));
}
