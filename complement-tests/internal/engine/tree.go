package engine

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
)

// copyTree copies a directory tree with modes, times, owners and holes, and shares blocks where the file system can.
func copyTree(from, to string) error {
	output, err := exec.Command("cp", "-a", "--reflink=auto", "--sparse=auto", from+"/.", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, output)
	}
	return nil
}

// extract unpacks a tar stream below root/at. Names count from there, also absolute ones; no name and no link leads out
// of root. Directories that an entry needs are made.
func extract(root, at string, stream io.Reader) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fail(BadRequest, "not a tar archive: %v", err)
		}
		if err := extractEntry(dir, relative(at, header.Name), header, archive); err != nil {
			return err
		}
	}
}

// relative turns a name of an archive into one below the root.
func relative(at, name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+at+"/"+path.Clean("/"+name)), "/")
	if clean == "" {
		return "."
	}
	return clean
}

func extractEntry(dir *os.Root, name string, header *tar.Header, content io.Reader) error {
	if parent := path.Dir(name); parent != "." {
		if err := dir.MkdirAll(parent, 0o755); err != nil {
			return fail(BadRequest, "%s: %v", name, err)
		}
	}
	mode := fs.FileMode(header.Mode).Perm()
	switch header.Typeflag {
	case tar.TypeDir:
		if err := dir.MkdirAll(name, mode); err != nil {
			return fail(BadRequest, "%s: %v", name, err)
		}
	case tar.TypeReg:
		// A new file, not new content for one that a running program may have open. A directory stays one.
		if info, err := dir.Lstat(name); err == nil && info.IsDir() {
			return fail(BadRequest, "%s is a directory and will not be replaced by a file", name)
		} else if err == nil {
			if err := dir.Remove(name); err != nil {
				return err
			}
		}
		file, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return fail(BadRequest, "%s: %v", name, err)
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Chmod(mode), file.Close())
	default:
		return fail(Unsupported, "%s: archives with entries of type %q are not supported", name, header.Typeflag)
	}
	return nil
}
