//! Routers on real parts: namespaces, nftables, dnsmasq, haproxy, a DHCP client, TCP both ways. Needs root; without it
//! each test says loudly that it was skipped.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed

mod balance;
mod crash;
mod lab;
mod properties;
mod rates;
mod sections;
mod services;
mod speed;
mod traffic;
