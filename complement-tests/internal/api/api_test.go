package api

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"complement-tests/internal/engine"
)

// client asks a server with an engine that has one image, base.
type client struct {
	t      *testing.T
	server *Server
}

func newClient(t *testing.T) *client {
	e, err := engine.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	config := engine.ImageConfig{Entrypoint: []string{"/run"}, Env: []string{"A=image"}, Ports: []uint16{8008}}
	if _, err := e.AddImage("base", config, map[string]string{"of": "image"}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return &client{t, New(e)}
}

// ask sends a request, wants a status, and returns the JSON that comes back.
func (c *client) ask(method, path, body string, want int) map[string]any {
	c.t.Helper()
	recorder := httptest.NewRecorder()
	c.server.ServeHTTP(recorder, httptest.NewRequest(method, "/v1.47"+path, strings.NewReader(body)))
	if recorder.Code != want {
		c.t.Fatalf("%s %s: %d, want %d: %s", method, path, recorder.Code, want, recorder.Body)
	}
	var answer map[string]any
	if text := recorder.Body.Bytes(); len(text) > 0 && text[0] == '{' {
		if err := json.Unmarshal(text, &answer); err != nil {
			c.t.Fatal(err)
		}
	}
	return answer
}

func (c *client) list(path string) (list []map[string]any) {
	c.t.Helper()
	recorder := httptest.NewRecorder()
	c.server.ServeHTTP(recorder, httptest.NewRequest("GET", "/v1.47"+path, nil))
	if err := json.Unmarshal(recorder.Body.Bytes(), &list); err != nil || list == nil {
		c.t.Fatalf("%s: %v: %s", path, err, recorder.Body)
	}
	return list
}

func TestAPingTellsTheVersionAndNeedsNone(t *testing.T) {
	c := newClient(t)
	for _, method := range []string{"HEAD", "GET"} {
		recorder := httptest.NewRecorder()
		c.server.ServeHTTP(recorder, httptest.NewRequest(method, "/_ping", nil))
		if recorder.Code != 200 || recorder.Header().Get("Api-Version") != Version {
			t.Fatalf("%s: %d %v", method, recorder.Code, recorder.Header())
		}
	}
}

func TestErrorsAreMessagesWithTheRightStatus(t *testing.T) {
	c := newClient(t)
	c.ask("POST", "/containers/create?name=taken", `{"Image": "base"}`, 201)
	for _, test := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/containers/none/json", "", 404, "No such container: none"},
		{"POST", "/containers/create", `{"Image": "none"}`, 404, "No such image: none"},
		{"POST", "/containers/create?name=taken", `{"Image": "base"}`, 409, "already in use"},
		{"POST", "/containers/create", `{"Image": "base", "Cmd": ["other"]}`, 501, "not supported"},
		{"POST", "/containers/create", `{"Image": `, 400, "JSON"},
		{"POST", "/containers/create", `{"Image": "base", "NetworkingConfig": {"EndpointsConfig": {"none": {}}}}`, 404, "network none not found"},
		{"POST", "/containers/taken/kill?signal=KILL", "", 409, "is not running"},
		{"POST", "/containers/taken/kill?signal=SIGNONE", "", 400, "NONE"},
		{"POST", "/containers/taken/pause", "", 409, "is not running"},
		{"POST", "/containers/taken/stop?t=soon", "", 400, "soon"},
		{"GET", "/containers/taken/logs?stdout=1&follow=1", "", 501, "logs"},
		{"POST", "/commit?container=taken&changes=" + url.QueryEscape("CMD other"), "{}", 501, "LABEL"},
		{"GET", "/containers/json?filters=" + url.QueryEscape(`{"name":["a"]}`), "", 501, "name"},
		{"DELETE", "/networks/none", "", 404, "not found"},
		{"POST", "/containers/taken/exec", "{}", 404, "not served"},
		{"POST", "/build", "", 404, "not served"},
	} {
		answer := c.ask(test.method, test.path, test.body, test.status)
		if message, _ := answer["message"].(string); !strings.Contains(message, test.says) {
			t.Errorf("%s %s: %q does not say %q", test.method, test.path, message, test.says)
		}
	}
}

func TestAnInspectedContainerHasEveryPartThatClientsDereference(t *testing.T) {
	c := newClient(t)
	made := c.ask("POST", "/containers/create?name=box", `{"Image": "base", "Env": ["B=own"], "Labels": {"own": "x"},
		"HostConfig": {"CapAdd": ["NET_ADMIN"], "PublishAllPorts": true, "NanoCpus": 5}}`, 201)
	if warnings, _ := made["Warnings"].([]any); len(warnings) != 1 {
		t.Errorf("a limit that is not kept is not warned of: %v", made)
	}
	box := c.ask("GET", "/containers/"+made["Id"].(string)+"/json", "", 200)
	state, config := box["State"].(map[string]any), box["Config"].(map[string]any)
	if state["Running"] != false || state["Status"] != "created" || box["NetworkSettings"].(map[string]any)["Ports"] == nil {
		t.Errorf("%v", box)
	}
	labels, env := config["Labels"].(map[string]any), config["Env"].([]any)
	if labels["of"] != "image" || labels["own"] != "x" || len(env) != 2 || env[0] != "A=image" || env[1] != "B=own" {
		t.Errorf("%v", config)
	}
}

func TestListsAreFilteredByLabels(t *testing.T) {
	c := newClient(t)
	c.ask("POST", "/containers/create?name=one", `{"Image": "base", "Labels": {"pkg": "a"}}`, 201)
	c.ask("POST", "/containers/create?name=two", `{"Image": "base", "Labels": {"pkg": "b"}}`, 201)
	for filter, want := range map[string]int{
		`{"label":{"pkg=a":true}}`: 1, `{"label":["pkg=a"]}`: 1, `{"label":{"pkg":true,"of":true}}`: 2, `{"label":["pkg=c"]}`: 0,
	} {
		if list := c.list("/containers/json?all=1&filters=" + url.QueryEscape(filter)); len(list) != want {
			t.Errorf("%s: %d", filter, len(list))
		}
	}
	if list := c.list("/containers/json"); len(list) != 0 {
		t.Errorf("without all, what does not run is listed: %v", list)
	}
}

func TestCommitLabelsAreTakenAsTheyStand(t *testing.T) {
	c := newClient(t)
	c.ask("POST", "/containers/create?name=box", `{"Image": "base"}`, 201)
	query := url.Values{"container": {"box"}, "repo": {"localhost/complement"}, "tag": {"a.b"}, "changes": {
		`LABEL "access_token_@user:hs1"="a=b"`, `LABEL "application_service_as"="id: as\nurl: 'x'\n"`,
	}}
	made := c.ask("POST", "/commit?"+query.Encode(), "{}", 201)
	for _, image := range c.list("/images/json") {
		if image["Id"] != made["Id"] {
			continue
		}
		labels := image["Labels"].(map[string]any)
		if labels["access_token_@user:hs1"] != "a=b" || labels["application_service_as"] != `id: as\nurl: 'x'\n` || labels["of"] != "image" {
			t.Errorf("%v", labels)
		}
		if tags := image["RepoTags"].([]any); len(tags) != 1 || tags[0] != "localhost/complement:a.b" {
			t.Errorf("%v", tags)
		}
		c.ask("DELETE", "/images/"+url.PathEscape("localhost/complement:a.b")+"?force=1", "", 200)
		c.ask("DELETE", "/images/"+image["Id"].(string), "", 404)
		return
	}
	t.Fatal("the image is not listed")
}

func TestAnArchiveIsUnpackedAndAnsweredWith200(t *testing.T) {
	c := newClient(t)
	c.ask("POST", "/containers/create?name=box", `{"Image": "base"}`, 201)
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	writer.WriteHeader(&tar.Header{Name: "/a/b", Mode: 0o777, Size: 1})
	writer.Write([]byte("x"))
	writer.Close()
	c.ask("PUT", "/containers/box/archive?path=%2F&noOverwriteDirNonDir=true", archive.String(), 200)
	files, _ := filepath.Glob(filepath.Join(c.server.engine.Dir(), "containers", "*", "root", "a", "b"))
	if len(files) != 1 {
		t.Fatalf("%v", files)
	}
	c.ask("PUT", "/containers/box/archive?path=%2F", "no archive", 400)
}

func TestAnIdleServerEnds(t *testing.T) {
	c := newClient(t)
	socket := filepath.Join(t.TempDir(), "s")
	ended := make(chan error, 1)
	go func() { ended <- c.server.Listen(context.Background(), socket, time.Millisecond) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
	if err := New(c.server.engine).Listen(context.Background(), filepath.Join(t.TempDir(), strings.Repeat("long", 30)), 0); err == nil {
		t.Fatal("a path that the system would cut was taken")
	}
	if _, err := http.Get("http://" + socket); err == nil {
		t.Fatal("it still answers")
	}
}
