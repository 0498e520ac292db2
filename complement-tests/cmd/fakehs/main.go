// Fakehs stands in for a homeserver in tests of the shim and of the runner. It takes vatra's command line and settings
// file, so that it can be put in vatra's place, and answers just enough for Complement to take it for a server.
//
// What it is asked to count it writes to its data directory, which shows whether files outlive a restart or a commit.
// FAKEHS=broken in its environment makes it answer wrongly where its answers are tested, and FAKEHS=dead makes it end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

func main() {
	config := flag.String("config", "", "vatra's settings file")
	flag.Parse()
	if os.Getenv("FAKEHS") == "dead" {
		log.Fatal("fakehs: dead on arrival")
	}
	if err := run(*config); err != nil {
		log.Fatalf("fakehs: %v", err)
	}
}

func run(config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	setting := func(key string) string {
		match := regexp.MustCompile(`(?m)^` + key + ` = "(.*)"$`).FindSubmatch(text)
		if match == nil {
			log.Fatalf("fakehs: %s: no %s", config, key)
		}
		return string(match[1])
	}
	data := setting("data_dir")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	handler := routes(filepath.Join(data, "count"), setting("server_name"))
	client := &http.Server{Addr: ":8008", Handler: handler}
	federation := &http.Server{Addr: ":8448", Handler: handler}
	failed := make(chan error, 2)
	go func() { failed <- client.ListenAndServe() }()
	go func() { failed <- federation.ListenAndServeTLS(setting("tls_cert"), setting("tls_key")) }()
	fmt.Println("fakehs is up")
	fmt.Fprintln(os.Stderr, "fakehs has nothing to complain about")

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		fmt.Println("fakehs ends as it was asked to")
		return errors.Join(client.Close(), federation.Close())
	}
}

func routes(counter, name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_matrix/client/versions", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if os.Getenv("FAKEHS") == "broken" {
			io.WriteString(w, `{"versions": "all of them"}`)
			return
		}
		io.WriteString(w, `{"versions": ["v1.1"]}`)
	})
	// For the shim's own tests.
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	mux.HandleFunc("POST /count", func(w http.ResponseWriter, _ *http.Request) {
		text, _ := os.ReadFile(counter)
		count, _ := strconv.Atoi(string(text))
		if err := os.WriteFile(counter, []byte(strconv.Itoa(count+1)), 0o644); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, count+1)
	})
	mux.HandleFunc("GET /resolve/{name}", func(w http.ResponseWriter, r *http.Request) {
		addresses, err := net.LookupHost(r.PathValue("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		fmt.Fprint(w, addresses[0])
	})
	mux.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) {
		client := &http.Client{Timeout: 5 * time.Second}
		response, err := client.Get(r.URL.Query().Get("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		_, _ = io.Copy(w, response.Body)
	})
	return mux
}
