//! The integration tests: one binary, so that the harness is compiled and linked once.
//!
//! Everything runs on 127.0.0.1, on ports of its own, and is ended with the test that started it.
//! Nothing is skipped: a program that is missing fails the test by name (see `tests/README.md`).

mod harness;

mod apps_test;
mod balance_test;
mod deploy_test;
mod failure_test;
mod gateway_test;
mod harness_test;
mod health_test;
mod retry_test;
mod timeout_test;
mod tls_test;
mod transport_test;
