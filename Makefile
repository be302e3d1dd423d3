# What people do with this repository. A fresh Debian machine needs nothing but a Rust toolchain,
# make and git; `make deps` installs the rest.

# Not every shell has them: tools for root (ip, nginx), and cargo after a fresh rustup.
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Namespaces, XDP and apt need root; building does not.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -E env "PATH=$$PATH",)

BUILD_PACKAGES := clang llvm libelf-dev zlib1g-dev m4 make pkg-config gcc-multilib libbpf-dev
TEST_PACKAGES := iproute2 iputils-ping ethtool tcpdump curl nginx-light iperf3 nsd bind9-dnsutils \
	bpftool procps findutils util-linux traceroute iputils-tracepath socat nftables valgrind \
	ldnsutils bind9-host libc-bin
# Peers that Sluice is measured against.
BENCH_PACKAGES := iptables haproxy nginx-light libnginx-mod-stream dpdk-dev
DNS_BENCH_PACKAGES := dnsperf nsd knot bind9

# Where the conformance data is.
CONFORMANCE ?= ../shared/conformance

# How long each fuzz target runs.
FUZZ_SECONDS ?= 60

.PHONY: help deps build demo test conformance fuzz bench bench-memory bench-wire bench-control bench-dns instructions lint clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install the Debian packages that are missing.
	@.ci/deps $(BUILD_PACKAGES) $(TEST_PACKAGES)

build: deps ## Build the release binaries.
	cargo build --workspace --release --locked

demo: build ## Show Sluice at work in network namespaces; needs root.
	@$(SUDO) $(TARGET)/release/demo conf/examples/services/web.yaml

test: deps ## Run all tests, also those that need root.
	cargo build --workspace --locked
	@.ci/test
	@$(MAKE) --no-print-directory conformance

conformance: deps ## Judge Sluice by the conformance data in CONFORMANCE.
	@cargo build --workspace --locked --bin conformance
	@dir="$(CONFORMANCE)"; \
	if [ ! -d "$$dir" ]; then \
		echo "make conformance: there is no folder $$dir; the kept cases are run instead"; \
		dir=tests/conformance; \
	fi; \
	failed=0; \
	for suite in service-validation allocation endpointslices proxy-flows maglev dns-records envvars; do \
		echo "$$suite:"; \
		"$(TARGET)/debug/conformance" "$$suite" "$$dir" || failed=1; \
	done; \
	exit $$failed

fuzz: deps ## Fuzz every parser for FUZZ_SECONDS each; needs cargo-fuzz.
	@.ci/fuzz $(FUZZ_SECONDS)

bench-memory: deps ## Measure the packet path in memory, in under 5 minutes; report in target/bench.
	cargo bench -p sluice-benches --no-default-features --locked --bench memory

bench-wire: deps ## Measure Sluice and its peers in network namespaces; needs root and two CPUs.
	@.ci/deps $(BENCH_PACKAGES)
	cargo build --workspace --release --locked
	@$(SUDO) $(TARGET)/release/bench-wire --out $(TARGET)/bench

bench-control: deps ## Measure the control plane of a large cluster; needs root.
	cargo build --workspace --release --locked
	@$(SUDO) $(TARGET)/release/bench-control --out $(TARGET)/bench

bench-dns: deps ## Measure the DNS server beside others of Debian; needs root and two CPUs.
	@.ci/deps $(DNS_BENCH_PACKAGES)
	cargo build --workspace --release --locked
	@$(SUDO) $(TARGET)/release/bench-dns --out $(TARGET)/bench

bench: bench-memory bench-wire bench-control bench-dns ## All benchmarks; report in target/bench.

instructions: deps ## Count instructions of packets and turns; compare with benches/instructions.json.
	@.ci/instructions

lint: deps ## Check format, lints, documentation and dependencies.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@if command -v cargo-deny >/dev/null; then cargo deny check; \
	else echo "make lint: cargo-deny is not installed; dependencies were not checked"; fi

clean: ## Remove what was built.
	cargo clean
