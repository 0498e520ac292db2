package api

import "net/http"

func (s *Server) createNetwork(w http.ResponseWriter, r *http.Request) error {
	var request struct {
		Name   string
		Labels map[string]string
	}
	if err := read(r, &request); err != nil {
		return err
	}
	network, err := s.engine.CreateNetwork(request.Name, request.Labels)
	if err != nil {
		return err
	}
	reply(w, http.StatusCreated, map[string]string{"Id": network.ID, "Warning": ""})
	return nil
}

func (s *Server) listNetworks(w http.ResponseWriter, r *http.Request) error {
	filter, err := labelFilter(r)
	if err != nil {
		return err
	}
	list := []map[string]any{}
	for _, network := range s.engine.Networks(filter) {
		list = append(list, map[string]any{"Id": network.ID, "Name": network.Name, "Labels": network.Labels, "Driver": "bridge"})
	}
	reply(w, http.StatusOK, list)
	return nil
}

func (s *Server) removeNetwork(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.RemoveNetwork(r.PathValue("id")))
}
