# Muster's two commands are `make demo` and `make test`; `make help` lists all.
SHELL := /bin/bash
GO    ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/muster-iot/muster/internal/cli.Version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo build test fuzz soak bench lint generate clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/muster
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/muster ./cmd/muster

demo: build ## start a server and a simulated fleet of 200 devices in ./muster-data
	@exec bin/muster demo --data-dir muster-data

test: ## run every test suite; installs what the real-client suites need when it can
	@scripts/test

fuzz: ## fuzz every parser, FUZZTIME each (default 2m)
	@scripts/fuzz $${FUZZTIME:-2m}

bench: build ## print the figures of the bars, peers in the same run
	@scripts/bench

soak: build ## 10 million shadow updates against 1,000 dynamic groups, and 30 minutes of load
	@scripts/soak

lint: ## golangci-lint with the layer rules; builds the pinned linter on first use
	@scripts/lint

generate: ## write generated code and docs/operations.md anew
	cd tools && $(GO) run ./awsgen -out ../internal/awsapi/catalog
	cd test/conformance/sdk && $(GO) test -run TestOperationsPage -count=1 . -update

clean: ## remove what make built; keeps data
	rm -rf bin .build
