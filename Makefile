# tenet. `make` lists what there is to do; what a target needs it installs itself (scripts/bootstrap).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(PATH):/usr/local/go/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PROGRAMS := plugins/tenet plugins/tenet-ipam cmd/tenetctl cmd/tenetd

# What a test may not skip for want of; TESTFLAGS goes to go test, KERNEL_TESTS to scripts/test-kernel.
export TENET_REQUIRE ?= ovs,netns,etcd
TESTFLAGS ?=
KERNEL_TESTS ?= -t 6000 -run 'Isolation|PortSecurity|Neighbour|Restart|Tenants|Alias|Provider|Publish|Routed|Limit|Repair|Sync|Outside|Chain|Function|SpansNodes|Die|Jump|Tunnel' ./test ./test/cluster
BENCHFLAGS ?=
FUZZTIME ?= 20s

DESTDIR ?=
PREFIX ?= /usr
BINDIR ?= $(PREFIX)/bin
CNIDIR ?= /opt/cni/bin
UNITDIR ?= /etc/systemd/system
NETWORKDIR ?= /etc/systemd/network
NMDIR ?= /etc/NetworkManager/conf.d

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the programs into ./bin
	@mkdir -p bin
	@for p in $(PROGRAMS); do CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./$$p; done

.PHONY: test
test: ## run every test but those on the kernel's datapath (root)
	@scripts/bootstrap test
	go test -count=1 -p 3 -parallel 3 -timeout 60m $(TESTFLAGS) ./test/cluster ./test ./... # those that take long first

.PHONY: test-kernel
test-kernel: ## run KERNEL_TESTS on the kernel's datapath, in an emulated guest
	scripts/test-kernel $(KERNEL_TESTS)

.PHONY: demo
demo: ## show it: containers, tenants and an attacker on this machine (root)
	@scripts/bootstrap demo
	@$(MAKE) --no-print-directory build
	@scripts/demo

.PHONY: demo-cluster
demo-cluster: ## show three nodes: tenants and a chain across them, and what goes on without etcd (root)
	@scripts/bootstrap demo
	@$(MAKE) --no-print-directory build
	@scripts/demo-cluster

.PHONY: bench
bench: ## measure an ADD and its parts, what traffic costs, and a cluster (root)
	@scripts/bootstrap test
	@$(MAKE) --no-print-directory build
	go run ./test/bench $(BENCHFLAGS)

.PHONY: bench-scale
bench-scale: ## measure a node of a cluster of 10, 100 and 1,000 nodes (root)
	@scripts/bootstrap test
	go run ./test/bench -part scale -o bench-scale.json $(BENCHFLAGS)

.PHONY: lint
lint: ## check the Go code, its formatting and the scripts
	@scripts/bootstrap lint
	.bin/golangci-lint run ./...
	.bin/golangci-lint fmt --diff ./...
	@! go list -deps ./plugins/... | grep '^go\.etcd\.io/etcd/' || { echo 'plugins must not link etcd: each ADD would start with it'; exit 1; }
	shellcheck $$(grep -lE '^#!.*sh$$' scripts/* .ci/run)

.PHONY: fmt
fmt: ## format the Go code
	@scripts/bootstrap lint
	.bin/golangci-lint fmt ./...

.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (20s)
	@grep -rEo --include='*_test.go' '^func Fuzz\w+' . | while IFS=: read -r file func; do \
		name=$${func#func }; echo "$${file%/*} $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$${file%/*}"; \
	done

.PHONY: install
install: build ## install below DESTDIR, in CNIDIR and PREFIX/bin, and what keeps hosts' hands off our links
	install -D -m 0755 -t $(DESTDIR)$(CNIDIR) bin/tenet bin/tenet-ipam
	install -D -m 0755 -t $(DESTDIR)$(BINDIR) bin/tenetctl bin/tenetd
	install -d $(DESTDIR)$(UNITDIR)/ovs-vswitchd.service.d
	sed 's|/usr/bin/tenetctl|$(BINDIR)/tenetctl|' conf/systemd/ovs-vswitchd.service.d/10-tenet.conf \
		>$(DESTDIR)$(UNITDIR)/ovs-vswitchd.service.d/10-tenet.conf
	sed 's|/usr/bin/tenetd|$(BINDIR)/tenetd|' conf/systemd/tenetd.service >$(DESTDIR)$(UNITDIR)/tenetd.service
	install -D -m 0644 -t $(DESTDIR)$(NETWORKDIR) conf/systemd/network/10-tenet-unmanaged.network
	install -D -m 0644 -t $(DESTDIR)$(NMDIR) conf/NetworkManager/10-tenet-unmanaged.conf

.PHONY: clean
clean: ## remove what make built; TENET_CACHE (~/.cache/tenet) keeps the linter and the kernel
	rm -rf bin .bin
