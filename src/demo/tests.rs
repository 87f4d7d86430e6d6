use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const RHYTHM: Rhythm = Rhythm {
    alive: Duration::from_secs(20),
    dead: Duration::from_secs(10),
};

async fn swift() -> SocketAddr {
    let (listener, address) = listen().await.unwrap();
    tokio::spawn(serve(Backend::new("swift", Duration::ZERO), listener));
    address
}

/// Sends `request` and reads until the backend closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(address, &request).await
}

#[tokio::test]
async fn three_backends_answer_by_name() {
    let addresses = backends(RHYTHM).await.unwrap();
    for (address, name) in addresses.iter().zip(["swift", "slow", "mortal"]) {
        let answer = get(*address, "/api/time?x=1").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains(&format!(r#""backend":"{name}""#)),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_page_names_the_backend_and_counts() {
    let address = swift().await;
    for count in 1..=2 {
        let answer = get(address, "/").await;
        assert!(answer.contains(&format!("<title>swift: request {count}</title>")));
    }
}

#[tokio::test]
async fn other_paths_have_their_statuses() {
    let address = swift().await;
    assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(get(address, "/error").await.starts_with("HTTP/1.1 500 "));
    assert!(get(address, "/nowhere").await.starts_with("HTTP/1.1 404 "));
    assert!(get(address, "/style.css").await.contains("text/css"));
}

#[tokio::test]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let requests = "POST /api/time HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
        HEAD /error HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = exchange(swift().await, requests).await;
    let statuses: Vec<_> = answers.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 3);
    assert!(
        !answers.contains("as asked") && answers.ends_with("ok\n"),
        "{answers}"
    );
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_politely() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = exchange(swift().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_stream_begins_before_it_ends() {
    let mut stream = TcpStream::connect(swift().await).await.unwrap();
    let request = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("tick 2") {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0);
        answer.push_str(str::from_utf8(&buffer[..length]).unwrap());
    }
    assert!(answer.contains("Transfer-Encoding: chunked"));
    assert!(!answer.contains("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn mortal_closes_its_connections_and_comes_back_on_its_port() {
    let (listener, address) = listen().await.unwrap();
    let backend = Backend::new("mortal", Duration::ZERO);
    let rhythm = Rhythm {
        alive: Duration::from_millis(300),
        dead: Duration::from_millis(100),
    };
    tokio::spawn(live_and_die(backend, listener, address, rhythm));

    let mut idle = TcpStream::connect(address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(request).await.unwrap();
    let mut answers = Vec::new();
    // Ends when mortal dies; a reset is as good an end.
    let _ = idle.read_to_end(&mut answers).await;
    assert!(answers.ends_with(b"ok\n"));
    while TcpStream::connect(address).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn the_guide_fits_a_terminal_and_its_routes_are_in_the_configuration() {
    let listen: SocketAddr = "127.0.0.1:65535".parse().unwrap();
    let guide = guide(listen, RHYTHM);
    for line in guide.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let config = config(&["127.0.0.1:9001".parse().unwrap()], listen);
    for path in ["/strict", "/about", "/old"] {
        assert!(guide.contains(&format!("{listen}{path}")));
        assert!(config.contains(&format!("path = \"{path}\"")));
    }
}

#[test]
fn the_configuration_is_toml() {
    let backends = ["127.0.0.1:9001", "127.0.0.1:9002"].map(|at| at.parse().unwrap());
    let text = config(&backends, "127.0.0.1:8080".parse().unwrap());
    let table: toml::Table = text.parse().unwrap();
    let demo = &table["upstream"]["demo"];
    assert_eq!(demo["backends"].as_array().unwrap().len(), 2);
    assert_eq!(table["route"].as_array().unwrap().len(), 4);
    assert!(table["route"][3]["redirect"]["to"].as_str() == Some("/{?query}"));
}
