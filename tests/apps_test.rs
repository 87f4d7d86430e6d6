//! The applications answer by themselves: what fails behind the gateway then fails because of it.

use std::process::Command;

use http::Request;

use crate::harness::apps::{
    App, Grpc, Gunicorn, PASSWORD, Site, Uvicorn, expect_success, python_program,
};
use crate::harness::client::{Connection, get};
use crate::harness::h2_client::H2;
use crate::harness::repository;
use crate::harness::visitor::{Visitor, sha256_hex};

#[test]
fn the_django_site_serves_pages_and_probes() {
    let site = Gunicorn::start("alpha", &[]);
    let mut client = site.connect();
    let mut page = |path: &str| client.get(path).expect("a response");
    assert!(page("/").text().contains("/articles/article-39"));
    assert!(
        page("/articles/article-3")
            .text()
            .contains("Comment 4 on Article 3")
    );
    assert_eq!(page("/slow").text().matches("<li>").count(), 20);
    assert_eq!(page("/whoami").text(), "alpha");
    assert_eq!(page("/status/418").status(), 418);
    assert_eq!(page("/sleep?ms=1").text(), "slept 1 ms\n");
    assert_eq!(page("/download?bytes=200000").body.len(), 200_000);
    assert_eq!(page("/headers").json()["headers"]["host"], "test.example");
    assert_eq!(page("/nowhere").status(), 404);
}

#[test]
fn the_django_site_counts_uploads_of_both_framings() {
    let site = Gunicorn::start("alpha", &[]);
    let fields = [
        "Content-Length: 5\r\n\r\nabcde",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ];
    for rest in fields {
        let mut client = site.connect();
        let request = format!("POST /upload HTTP/1.1\r\nHost: test.example\r\n{rest}");
        client.send(request.as_bytes()).expect("it reads");
        assert_eq!(
            client.response().expect("a response").json()["bytes"],
            5,
            "{rest}"
        );
    }
}

#[test]
fn a_session_of_one_django_instance_is_known_to_the_others() {
    let site = Site::create();
    let first = Gunicorn::start_on(&site, "first", &[]);
    let second = Gunicorn::start_on(&site, "second", &[]);
    let mut visitor = Visitor::new(first.address(), "test.example");
    assert_eq!(visitor.get("/me").status(), 302);
    visitor.log_in("user7", PASSWORD);
    visitor.go_to(second.address());
    assert!(visitor.get("/me").text().contains("Hello user7"));
    assert_eq!(visitor.post("/feedback", "text=well+done").status(), 200);
}

#[test]
fn the_django_site_refuses_a_form_without_its_token() {
    let site = Gunicorn::start("alpha", &[]);
    let mut client = site.connect();
    let form = "POST /feedback HTTP/1.1\r\nHost: test.example\r\nContent-Length: 6\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\ntext=x";
    client.send(form.as_bytes()).expect("it reads");
    assert_eq!(client.response().expect("a response").status(), 403);
}

#[test]
fn the_fastapi_service_answers_streams_and_dies_on_request() {
    let service = Uvicorn::start("beta", &[]);
    let page = |path: &str| get(service.address(), path);
    assert_eq!(page("/whoami").text(), "beta");
    assert_eq!(page("/stream?chunks=2&ms=1").text(), "chunk 0\nchunk 1\n");
    assert!(
        page("/events?count=2&ms=1")
            .text()
            .contains("id: 1\ndata: event 1\n")
    );
    assert_eq!(page("/status/503").status(), 503);
    assert_eq!(page("/download?bytes=300").body[255..258], [255, 0, 1]);
    assert_eq!(page("/headers?a=%41").json()["target"], "/headers?a=%41");
    for path in ["/abort?after=10", "/abort?after=10&announced=20"] {
        service.connect().get_broken_off(path);
    }
}

#[test]
fn the_fastapi_service_hashes_uploads() {
    let service = Uvicorn::start("beta", &[]);
    let body = vec![7_u8; 3_000_000];
    let mut client = service.connect();
    let head = format!(
        "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client
        .send(head.as_bytes())
        .and_then(|()| client.send(&body))
        .expect("it reads");
    let answer = client.response().expect("a response").json();
    assert_eq!(answer["bytes"], body.len());
    assert_eq!(answer["sha256"], sha256_hex(&body));
}

#[test]
fn the_websocket_client_and_the_service_agree() {
    let service = Uvicorn::start("beta", &[]);
    let mut client = Command::new(python_program("python"));
    client
        .arg(repository("tests/apps/ws_client.py"))
        .arg(format!("ws://{}/ws", service.address()));
    expect_success("ws_client.py", &mut client);
}

#[test]
fn the_grpc_client_and_the_service_agree() {
    let service = Grpc::start("gamma");
    let mut client = Command::new(python_program("python"));
    client
        .arg(repository("tests/apps/grpc_client.py"))
        .arg(service.address().to_string());
    expect_success("grpc_client.py", &mut client);
}

#[test]
fn our_own_http2_client_can_call_the_grpc_service() {
    let service = Grpc::start("gamma");
    let client = H2::cleartext(service.address());
    let call = |message: &[u8]| {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        Request::post(format!(
            "http://{}/tollgate.test.Bytes/Echo",
            service.address()
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body([&[0], &length[..], message].concat())
        .expect("a valid request")
    };
    let answers = client.requests(vec![call(b"one"), call(b"two")]);
    for (answer, wanted) in answers.into_iter().zip(["one", "two"]) {
        let answer = answer.expect("a response");
        assert_eq!(&answer.response.body()[5..], wanted.as_bytes());
        let trailers = answer.trailers.expect("gRPC ends with trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-instance"], "gamma");
    }
}

#[test]
fn an_instance_can_be_killed_frozen_and_started_again() {
    let mut site = Gunicorn::start("alpha", &[]);
    let before = site.pid();
    site.freeze();
    let mut client = site.connect();
    client
        .send(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the kernel takes it");
    site.thaw();
    assert_eq!(client.response().expect("after the thaw").text(), "alpha");
    site.kill();
    site.restart();
    assert_ne!(site.pid(), before);
    assert_eq!(whoami(&site), "alpha");
}

fn whoami(app: &App) -> String {
    Connection::open(app.address())
        .get("/whoami")
        .expect("a response")
        .text()
}
