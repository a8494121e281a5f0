# SPDX-License-Identifier: Apache-2.0

GO ?= go
FUZZTIME ?= 30s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

ARCHES = arm arm64 amd64
# What the tests in machines need is not part of these.
UNIT = $$($(GO) list ./... | grep -v /e2e)

.PHONY: help demo test setup unit unit32 libusb machines build bench fuzz lint clean

help:
	@echo "make demo      take a simulated BlueField over from its host, push a BFB, follow its boot (needs Go alone)"
	@echo "make test      install what the tests need (apt-get, as root) and run all of them"
	@echo "make build     static binaries for the BMC: $(ARCHES:%=bin/linux-%)"
	@echo "make bench     both FIFOs against the modelled link and the one-URB baseline"
	@echo "make fuzz      every fuzz test for FUZZTIME=$(FUZZTIME)"
	@echo "make lint      gofmt, vet, staticcheck"

demo:
	@sh scripts/demo.sh

# The lanes of the tests, one after the other: they share two cores.
test: setup lint-vet unit unit32 libusb machines

setup:
	sh scripts/setup.sh

.PHONY: lint-vet
lint-vet:
	@test -z "$$(gofmt -l .)" || { echo "gofmt -w:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags libusb ./...
	$(GO) vet -tags nosim ./cmd/...
	GOARCH=arm $(GO) vet ./...

unit:
	$(GO) test -race -timeout 40m $(UNIT)

# The kernel's structures have another layout for 32-bit programs.
unit32:
	GOARCH=386 $(GO) test -timeout 30m $$($(GO) list ./... | grep -v -e /e2e -e /internal/vmtest)

libusb:
	$(GO) build -tags libusb -o bin/libusb/bmc-rshim ./cmd/bmc-rshim
	@! CGO_ENABLED=0 $(GO) build -tags libusb -o /dev/null ./cmd/bmc-rshim 2>/dev/null || \
		{ echo "a build without cgo silently leaves libusb out"; exit 1; }

machines:
	$(GO) test -timeout 85m ./e2e

build: $(ARCHES:%=bin/linux-%)

.PHONY: $(ARCHES:%=bin/linux-%)
$(ARCHES:%=bin/linux-%): bin/linux-%:
	CGO_ENABLED=0 GOOS=linux GOARCH=$* GOARM=7 $(GO) build -trimpath -tags nosim \
		-ldflags "-s -w" -o $@/ ./cmd/bmc-rshim ./cmd/ncsi-oem
	CGO_ENABLED=0 GOOS=linux GOARCH=$* GOARM=7 $(GO) build -trimpath -ldflags "-s -w" -o $@/ ./cmd/bluefield-sim

# The tables are in virtual time, exact; the benchmarks behind it are what the
# processor takes.
bench:
	$(GO) test -count=1 -run 'Test(Push|TM)Rate$$' -v ./usbbackend
	$(GO) test -run '^$$' -bench . -benchmem ./usbbackend ./rshim/...

fuzz:
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "== $$p $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p || exit 1; \
		done; \
	done

lint: lint-vet
	$(GO) run $(STATICCHECK) -checks all,-ST1003 ./...

clean:
	rm -rf bin out
