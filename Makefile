# Arcus. `make run` and `make test` are all that a newcomer needs; both install what they need themselves.
.DEFAULT_GOAL := help
SHELL := /bin/sh
ARGS ?=
CLUSTER ?=
# Servers such as mariadbd and haproxy live where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin
PY := target/clients/bin/python

.PHONY: help run cluster cluster-down cluster-status test test-rust test-chaos test-host test-lab overload chaos test-clients clients lint coverage bench clean

help: ## show this
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## build and start Arcus on this machine (ARGS="--zone demo --hosts 20")
	@deploy/setup-dev run
	@cargo build --release --bin arcus
	@exec target/release/arcus dev $(ARGS)

cluster: ## start the production form on this machine: replicas, etcd, Galera, balancer (CLUSTER=small, ARGS="--hosts 20")
	@deploy/setup-dev cluster
	@cargo build --release --bin arcus --bin arcus-cluster
	@target/release/arcus-cluster up $(if $(filter small,$(CLUSTER)),--small) $(ARGS)

cluster-down: ## end it; its data stays in data/cluster
	@target/release/arcus-cluster down $(ARGS)

cluster-status: ## what of it runs, and whether it serves
	@target/release/arcus-cluster status $(ARGS)

test: ## run all tests: Rust, and real CloudStack clients
	@deploy/setup-dev test
	@$(MAKE) --no-print-directory test-rust
	@$(MAKE) --no-print-directory test-clients

test-rust: ## the Rust tests only (SQLite, MariaDB, etcd)
	cargo test --workspace --no-fail-fast

test-chaos: overload ## the long tests of the production form: cluster, coordination, kill loop, overload (ARCUS_FAULTS, ARCUS_SEED; 15 minutes and a release build)
	@deploy/setup-dev test
	cargo test --workspace --no-fail-fast --test production --test coordination --test kill_loop -- --include-ignored --nocapture

test-host: ## a real guest on a real hypervisor, end to end (part of make test; says loudly when this machine can't)
	@deploy/setup-dev test
	cargo test -p arcus --test host -- --nocapture

test-lab: ## tests in machines with kernels of their own: NFS, 802.1Q, KVM, LXC (tests/lab; a quarter of an hour, once four minutes more for images)
	@deploy/setup-dev lab
	cargo test --workspace --no-fail-fast --test lab -- --include-ignored --test-threads 1

overload: ## ten times the sustainable load for a minute, release build, times judged (on a machine that has nothing else to do)
	ulimit -n 20000; ARCUS_OVERLOAD_SECONDS=60 cargo test --release -p arcus --test overload -- ten_times --nocapture

chaos: ## 2,000 faults under load, release build (ARGS="--seed 7 --keep data/chaos")
	@deploy/setup-dev test
	cargo build --release --bin arcus --bin arcus-chaos
	target/release/arcus-chaos run --isolated --faults 2000 --every 500 1500 $(ARGS)

clients: ## install the pinned real clients into target/clients
	@test -x $(PY) || python3 -m venv target/clients
	@$(PY) -m pip install -q --disable-pip-version-check -r tests/clients/requirements.txt

test-clients: clients ## real clients against a running Arcus
	cargo build --bin arcus
	$(PY) tests/clients/run.py --arcus target/debug/arcus

lint: ## formatting, clippy, licences and bans
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then cargo deny --offline check licenses bans sources; else echo "lint: cargo-deny isn't installed: licences and bans are not checked"; fi

coverage: ## which requirement rows are proven by a test, which not
	@python3 tests/coverage.py

bench: ## figures of docs/performance.md (see tests/bench/README.md)
	cargo build --release --bin arcus --bin arcus-bench
	target/release/arcus-bench own $(ARGS)

clean: ## remove everything built
	cargo clean
	rm -rf data
