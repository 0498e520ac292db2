package mini

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain ends with a code that tells nothing of the tests, if it is asked to.
func TestMain(m *testing.M) {
	code := m.Run()
	if said, err := strconv.Atoi(os.Getenv("MINI_EXIT")); err == nil {
		code = said
	}
	os.Exit(code)
}

// authority is a certificate authority in the form that Complement gives to servers: an RSA key in PKCS#1.
func authority(t testing.TB) (files map[string][]byte, pool *x509.CertPool) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Mini CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return map[string][]byte{
		"/complement/ca/ca.crt": certificate,
		"/complement/ca/ca.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	}, pool
}

// deploy builds two servers, commits them, and starts a container of each image.
func deploy(t *testing.T) (hs1, hs2 server, pool *x509.CertPool) {
	cleanup(t)
	t.Cleanup(func() { cleanup(t) })
	files, pool := authority(t)
	labels := map[string]string{"mini": ""}
	docker(t, "POST", "/networks/create", map[string]any{"Name": networkName, "Labels": labels}, nil)
	var servers []server
	for _, name := range []string{"hs1", "hs2"} {
		first := start(t, os.Getenv("COMPLEMENT_BASE_IMAGE"), "build_"+name, name, files)
		if count := call(t, "POST", first.client+"/count"); count != "1" {
			t.Fatalf("the first count is %s", count)
		}
		docker(t, "POST", "/containers/"+first.id+"/stop?t=10", nil, nil)
		var image object
		change := url.QueryEscape(`LABEL "access_token_@user:hs1"="secret"`)
		docker(t, "POST", "/commit?container="+first.id+"&repo=localhost%2Fmini&tag="+name+"&changes="+change, map[string]any{}, &image)
		servers = append(servers, start(t, image.Id, "run_"+name, name, files))
	}
	return servers[0], servers[1], pool
}

func TestVersions(t *testing.T) {
	hs1, _, _ := deploy(t)
	t.Run("are a list", func(t *testing.T) {
		var answer struct{ Versions []string }
		if err := json.Unmarshal([]byte(call(t, "GET", hs1.client+"/_matrix/client/versions")), &answer); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFilesOutliveCommitAndRestart(t *testing.T) {
	hs1, _, _ := deploy(t)
	if count := call(t, "POST", hs1.client+"/count"); count != "2" {
		t.Fatalf("after the commit: %s", count)
	}
	docker(t, "POST", "/containers/"+hs1.id+"/stop?t=10", nil, nil)
	if said := logs(t, hs1.id); !strings.Contains(said, "ends as it was asked to") {
		t.Fatalf("it was not asked to end:\n%s", said)
	}
	if _, err := http.Get(hs1.client + "/name"); err == nil {
		t.Fatal("a stopped server answers")
	}
	docker(t, "POST", "/containers/"+hs1.id+"/start", nil, nil)
	hs1.find(t)
	if count := call(t, "POST", hs1.client+"/count"); count != "3" {
		t.Fatalf("after the restart: %s", count)
	}
}

func TestServersAreApartAndFindEachOther(t *testing.T) {
	hs1, hs2, pool := deploy(t)
	if name := call(t, "GET", hs2.client+"/name"); name != "hs2" {
		t.Fatalf("hs2 is %s", name)
	}
	if name := call(t, "GET", hs1.client+"/fetch?url="+url.QueryEscape("http://hs2:8008/name")); name != "hs2" {
		t.Fatalf("hs1 finds %s for hs2", name)
	}
	if response, err := http.Get(hs1.client + "/resolve/example.org"); err != nil || response.StatusCode != 404 {
		t.Fatalf("a name outside: %v %v", response, err)
	}
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "host") }))
	host := fmt.Sprintf("http://host.docker.internal:%d/", listener.Addr().(*net.TCPAddr).Port)
	if said := call(t, "GET", hs1.client+"/fetch?url="+url.QueryEscape(host)); said != "host" {
		t.Fatalf("the host says %s", said)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "hs1"}}}
	response, err := client.Get(hs1.federation + "/name")
	if err != nil {
		t.Fatalf("the certificate is not the authority's for hs1: %v", err)
	}
	response.Body.Close()
}

func TestAPausedServerWaits(t *testing.T) {
	hs1, _, _ := deploy(t)
	docker(t, "POST", "/containers/"+hs1.id+"/pause", nil, nil)
	client := &http.Client{Timeout: 300 * time.Millisecond}
	if _, err := client.Get(hs1.client + "/name"); err == nil {
		t.Fatal("a paused server answers")
	}
	docker(t, "POST", "/containers/"+hs1.id+"/unpause", nil, nil)
	if name := call(t, "GET", hs1.client+"/name"); name != "hs1" {
		t.Fatalf("hs1 is %s", name)
	}
}

// TestFlaky fails the first MINI_FAILURES times; MINI_FLAKY is the file in which it counts.
func TestFlaky(t *testing.T) {
	file := os.Getenv("MINI_FLAKY")
	if file == "" {
		return
	}
	failures, _ := strconv.Atoi(os.Getenv("MINI_FAILURES"))
	ran, _ := os.ReadFile(file)
	os.WriteFile(file, append(ran, '.'), 0o600)
	if len(ran) < failures {
		t.Fatal("passes the next time, or the one after that")
	}
}

func TestHangs(t *testing.T) {
	file := os.Getenv("MINI_HANG")
	if file == "" {
		t.Skip("only hangs when asked to")
	}
	deploy(t)
	os.WriteFile(file, nil, 0o600)
	time.Sleep(time.Hour)
}

func TestPanics(t *testing.T) {
	if os.Getenv("MINI_PANIC") != "" {
		panic("as asked")
	}
}
