// Package mini is a small suite that uses a container engine the way Complement does: build and commit a server once,
// then start a container of that image for each test. The runner is tested with it.
package mini

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// docker sends one request; a status from 400 on fails the test.
func docker(t testing.TB, method, path string, body, into any) {
	t.Helper()
	var content io.Reader
	switch body := body.(type) {
	case nil:
	case []byte:
		content = bytes.NewReader(body)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, "http://docker/v1.45"+path, content)
	if err != nil {
		t.Fatal(err)
	}
	response, err := engine.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 400 {
		t.Fatalf("%s %s: %s %s %v", method, path, response.Status, text, err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
}

var engine = &http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://"))
	},
}}

const networkName = "mini_net"

type object struct{ Id, Name string }

func filters() string {
	return "filters=" + url.QueryEscape(`{"label":{"mini":true}}`)
}

// cleanup removes what an earlier run or test left, as Complement does first and last.
func cleanup(t testing.TB) {
	var list []object
	docker(t, "GET", "/containers/json?all=1&"+filters(), nil, &list)
	for _, each := range list {
		docker(t, "DELETE", "/containers/"+each.Id+"?force=1", nil, nil)
	}
	docker(t, "GET", "/images/json?"+filters(), nil, &list)
	for _, each := range list {
		docker(t, "DELETE", "/images/"+each.Id+"?force=1&noprune=1", nil, nil)
	}
	docker(t, "GET", "/networks?"+filters(), nil, &list)
	for _, each := range list {
		docker(t, "DELETE", "/networks/"+each.Id, nil, nil)
	}
}

// server is a container that runs.
type server struct {
	id, client, federation string
}

// start makes and starts a container, and waits until it answers.
func start(t testing.TB, image, name, hsName string, authority map[string][]byte) server {
	t.Helper()
	var made object
	docker(t, "POST", "/containers/create?name="+name, map[string]any{
		"Image": image, "Env": []string{"SERVER_NAME=" + hsName, "FAKEHS=" + os.Getenv("FAKEHS")},
		"Labels": map[string]string{"mini": "", "mini_name": hsName},
		"HostConfig": map[string]any{
			"PublishAllPorts": true, "ExtraHosts": []string{"host.docker.internal:host-gateway"}, "CapAdd": []string{"NET_ADMIN"},
		},
		"NetworkingConfig": map[string]any{
			"EndpointsConfig": map[string]any{networkName: map[string]any{"Aliases": []string{hsName}}},
		},
	}, &made)
	for path, content := range authority {
		docker(t, "PUT", "/containers/"+made.Id+"/archive?path=%2F&noOverwriteDirNonDir=true", tarOf(t, path, content), nil)
	}
	docker(t, "POST", "/containers/"+made.Id+"/start", nil, nil)
	s := server{id: made.Id}
	s.find(t)
	return s
}

// find learns the ports of a container that has just been started, and waits for the server.
func (s *server) find(t testing.TB) {
	t.Helper()
	var inspected struct {
		State           struct{ Running bool }
		NetworkSettings struct {
			Ports map[string][]struct{ HostIp, HostPort string }
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		docker(t, "GET", "/containers/"+s.id+"/json", nil, &inspected)
		if !inspected.State.Running {
			t.Fatalf("the server has ended; it said:\n%s", logs(t, s.id))
		}
		ports := inspected.NetworkSettings.Ports
		s.client = fmt.Sprintf("http://%s:%s", ports["8008/tcp"][0].HostIp, ports["8008/tcp"][0].HostPort)
		s.federation = fmt.Sprintf("https://%s:%s", ports["8448/tcp"][0].HostIp, ports["8448/tcp"][0].HostPort)
		if response, err := http.Get(s.client + "/_matrix/client/versions"); err == nil {
			response.Body.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the server does not answer; it said:\n%s", logs(t, s.id))
}

func logs(t testing.TB, id string) string {
	response, err := engine.Get("http://docker/v1.45/containers/" + id + "/logs?stdout=1&stderr=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func tarOf(t testing.TB, path string, content []byte) []byte {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	if err := writer.WriteHeader(&tar.Header{Name: path, Mode: 0o777, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	writer.Write(content)
	writer.Close()
	return archive.Bytes()
}

// call sends a request to a server and returns the body.
func call(t testing.TB, method, address string) string {
	t.Helper()
	request, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%s %s: %s %s %v", method, address, response.Status, text, err)
	}
	return string(text)
}
