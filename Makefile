# Two commands for a newcomer: `make demo` (watch a cluster live) and `make test` (everything). All of them install what is missing first.
.PHONY: setup build demo up down check test test-thinking test-waiting soak bench bench-module bench-snapshots fmt
.DEFAULT_GOAL := help

export AURORA_REDIS_BIN := $(CURDIR)/target/debug
# What tests/setup unpacks there comes after what the machine has.
export AURORA_REDIS_CACHE ?= $(CURDIR)/.cache
export PATH := $(PATH):/usr/sbin:/sbin:$(AURORA_REDIS_CACHE)/bin:$(AURORA_REDIS_CACHE)/tools/usr/bin:$(AURORA_REDIS_CACHE)/tools/usr/sbin
# Tests bring up whole clusters; two at a time is what two cores carry.
TEST_THREADS ?= 2
# The simulation's seeds for `make soak`; the first 10,000 are those of `make test`.
FIRST_SEED ?= 10000
SEEDS ?= 100000
# How often each server, its agent, and both are frozen beyond the lease for `make soak`.
MODULE_ROUNDS ?= 50
# Inputs that each property of the readers of RDB files and manifests is tried with for `make soak`.
FUZZ_CASES ?= 200000
# Options of the benchmark, e.g. "--repeats 3 --faults kill,term --systems ours3,sentinel"; demo bench --help lists them.
BENCH ?= --write docs/benchmark.md
# Options of the measurement of the lease module, e.g. "--rounds 200".
BENCH_MODULE ?= --write docs/benchmark.md
# Options of the measurement of snapshots, e.g. "--rounds 2 --mib 256".
BENCH_SNAPSHOTS ?= --write docs/benchmark.md

help:
	@echo "make demo    a cluster's whole life on real parts, each step verified"
	@echo "make up      the same cluster, left running; prints the page's address"
	@echo "make down    ends it"
	@echo "make check   formatting, lints, docs, unit and quick tests (minutes)"
	@echo "make test    everything"
	@echo "make soak    what takes longer: the model check at bigger bounds, 100,000 seeds of the simulation (SEEDS=),"
	@echo "             servers of every version frozen beyond their lease (MODULE_ROUNDS=), readers of RDB files and manifests"
	@echo "             on random and damaged input (FUZZ_CASES=)"
	@echo "make bench   the figures of docs/benchmark.md, measured anew and written there (BENCH=--quick: a few, printed only)"
	@echo "make bench-module   what the lease module costs, measured anew and written there (five minutes)"
	@echo "make bench-snapshots   what snapshots cost, in HDFS and on clients' writes, measured anew and written there (ten minutes)"
	@echo "make setup   installs what is missing, by package name"

setup:
	@tests/setup

build:
	cargo build --locked --workspace --lib --bins

demo: setup build
	@target/debug/demo run

up: setup build
	@target/debug/demo up

down: build
	@target/debug/demo down

fmt:
	cargo fmt --all --check

# With the whole workspace's features, so that nothing is compiled for it alone.
QUICK = $(basename $(notdir $(wildcard agent/tests/*.rs controller/tests/*.rs))) simulation
check: setup fmt build
	cargo clippy -q --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -q --locked --workspace --no-deps
	AURORA_REDIS_SIM_SEEDS=500 cargo test -q --locked --workspace --lib --bins $(addprefix --test ,$(QUICK)) -- --skip each_rule_that_is_left_out

# Suites that only think run beside those that mostly wait for processes, and give way to them.
SUITES = $(basename $(notdir $(wildcard */tests/*.rs tests/model/tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard */tests/*/main.rs)))
THINKING = simulation holds rules
test: setup build
	cargo test --locked --workspace --no-run
	+@$(MAKE) --no-print-directory -j2 test-thinking test-waiting

test-thinking:
	nice cargo test --locked --workspace $(addprefix --test ,$(THINKING))

test-waiting:
	cargo test --locked --workspace --lib --bins $(addprefix --test ,$(filter-out $(THINKING),$(SUITES))) -- --test-threads=$(TEST_THREADS)

soak: build
	PROPTEST_CASES=$(FUZZ_CASES) cargo test --locked -p aurora-redis-agent --lib -- rdb:: snapshot::
	cargo test --locked -p model --test holds -- --ignored --nocapture --test-threads=1
	AURORA_REDIS_MODULE_ROUNDS=$(MODULE_ROUNDS) cargo test --locked -p aurora-redis-agent --test lease_module -- --test-threads=1
	AURORA_REDIS_SIM_FIRST=$(FIRST_SEED) AURORA_REDIS_SIM_SEEDS=$(SEEDS) cargo test --locked -p aurora-redis-controller --test simulation a_cluster -- --nocapture

bench: export AURORA_REDIS_BIN := $(CURDIR)/target/release
bench: setup
	cargo build --release --locked --workspace --lib --bins
	@target/release/demo bench $(BENCH)

bench-module: export AURORA_REDIS_BIN := $(CURDIR)/target/release
bench-module: setup
	cargo build --release --locked --workspace --lib --bins
	@target/release/demo bench-module $(BENCH_MODULE)

bench-snapshots: export AURORA_REDIS_BIN := $(CURDIR)/target/release
bench-snapshots: setup
	cargo build --release --locked --workspace --lib --bins
	@target/release/demo bench-snapshots $(BENCH_SNAPSHOTS)
