//! The integration tests: one binary, so that the harness is compiled and linked once.
//!
//! Everything runs on 127.0.0.1, on ports of its own, and is ended with the test that started it.
//! Nothing is skipped: a program that is missing fails the test by name (see `tests/README.md`).

mod harness;

mod apps_test;
mod balance_test;
mod ban_test;
mod banner_test;
mod cache_kinds_test;
mod cache_test;
mod cli_test;
mod client_certificate_test;
mod compression_test;
mod conformance_test;
mod demo_test;
mod deploy_test;
mod descriptor_test;
mod django_cache_test;
mod dns_test;
mod docs_test;
mod explain_test;
mod failure_test;
mod first_use_test;
mod gateway_test;
mod guard_test;
mod harness_test;
mod header_test;
mod health_test;
mod http2_backend_test;
mod http2_limit_test;
mod ingress_test;
mod lanes_test;
mod limit_client_test;
mod limit_modes_test;
mod limit_script_test;
mod limit_test;
mod listener_test;
mod log_test;
mod memory_test;
mod pace_test;
mod path_test;
mod plan_effects_test;
mod plans_test;
mod policy_test;
mod purge_test;
mod redis_test;
mod refusal_test;
mod reload_test;
mod response_test;
mod retry_test;
mod route_test;
mod shared_cache_test;
mod shared_limit_test;
mod smuggling_test;
mod stream_test;
mod timeout_test;
mod tls_session_test;
mod tls_test;
mod transport_test;
mod upgrade_test;
mod warm_test;
mod watch_test;
