package api

import (
	"net/http"
	"regexp"
	"strings"

	"complement-tests/internal/engine"
)

func (s *Server) listImages(w http.ResponseWriter, r *http.Request) error {
	filter, err := labelFilter(r)
	if err != nil {
		return err
	}
	list := []map[string]any{}
	for _, image := range s.engine.Images(filter) {
		list = append(list, map[string]any{"Id": "sha256:" + image.ID, "RepoTags": tags(&image), "Labels": image.Labels})
	}
	reply(w, http.StatusOK, list)
	return nil
}

func tags(image *engine.Image) []string {
	if image.Tag == "" {
		return []string{}
	}
	return []string{image.Tag}
}

func (s *Server) removeImage(w http.ResponseWriter, r *http.Request) error {
	image, err := s.engine.RemoveImage(r.PathValue("id"))
	if err != nil {
		return err
	}
	removed := []map[string]string{}
	for _, tag := range tags(image) {
		removed = append(removed, map[string]string{"Untagged": tag})
	}
	reply(w, http.StatusOK, append(removed, map[string]string{"Deleted": "sha256:" + image.ID}))
	return nil
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	labels := map[string]string{}
	for _, change := range query["changes"] {
		key, value, err := labelChange(change)
		if err != nil {
			return err
		}
		labels[key] = value
	}
	tag := query.Get("repo")
	if tag != "" && query.Get("tag") != "" {
		tag += ":" + query.Get("tag")
	}
	image, err := s.engine.Commit(query.Get("container"), tag, labels)
	if err != nil {
		return err
	}
	reply(w, http.StatusCreated, map[string]string{"Id": "sha256:" + image.ID})
	return nil
}

var labelLine = regexp.MustCompile(`(?s)^LABEL\s+"([^"]+)"="(.*)"$`)

// labelChange reads an instruction LABEL "key"="value". The value is taken as it stands: nothing in it is an escape.
func labelChange(line string) (key, value string, err error) {
	match := labelLine.FindStringSubmatch(strings.TrimSpace(line))
	if match == nil {
		return "", "", &engine.Error{Kind: engine.Unsupported, Message: `only LABEL "key"="value" is supported, not ` + line}
	}
	return match[1], match[2], nil
}
