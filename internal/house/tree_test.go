package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/outrider-agent/outrider"
	root   = "../.."
)

// A tree is the project: its text files, its Go files parsed, and what each
// package of the root module links.
type tree struct {
	text map[string]string   // by slash path from the root
	code []*goFile           // sorted by path; testdata is left out
	deps map[string][]string // package (./agent) to all import paths it links
	fset *token.FileSet
}

type goFile struct {
	*ast.File
	path string // agent/agent.go
	pkg  string // ./agent
	test bool   // _test.go
}

// newTree parses files. A file that does not parse fails the test.
func newTree(t *testing.T, files map[string]string, deps map[string][]string) *tree {
	t.Helper()
	tr := &tree{text: files, deps: deps, fset: token.NewFileSet()}
	for _, p := range tr.paths(".go") {
		if strings.Contains(p, "testdata/") {
			continue
		}
		f, err := parser.ParseFile(tr.fset, p, files[p], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		tr.code = append(tr.code, &goFile{f, p, "./" + path.Dir(p), strings.HasSuffix(p, "_test.go")})
	}
	return tr
}

// checkout reads the project: what git tracks or would track, or every file
// where there is no git.
func checkout(t *testing.T) *tree {
	t.Helper()
	files := map[string]string{}
	for _, p := range listFiles(t) {
		b, err := os.ReadFile(filepath.Join(root, p))
		if errors.Is(err, fs.ErrNotExist) {
			continue // tracked, and deleted in the working tree
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b[:min(len(b), 8000)], []byte{0}) {
			b = nil // a picture: it exists, and has no text
		}
		files[p] = string(b)
	}
	if files["go.mod"] == "" {
		t.Fatalf("read %d files of %s, and no go.mod", len(files), root)
	}
	return newTree(t, files, listDeps(t))
}

func listFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil && len(out) > 0 {
		return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	}
	var paths []string
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules", "outrider-data"}, d.Name()):
			return fs.SkipDir
		case d.Type().IsRegular():
			paths = append(paths, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// listDeps asks the go command what every package links. -e, because a
// package that does not compile is the compiler's to report.
func listDeps(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Deps", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := map[string][]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Deps       []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return deps
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		deps[own(p.ImportPath)] = p.Deps
	}
}

// paths returns the paths of the files with this ending, sorted.
func (tr *tree) paths(ending string) []string {
	var out []string
	for p := range tr.text {
		if strings.HasSuffix(p, ending) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// at says where a node is: agent/agent.go:12.
func (tr *tree) at(n ast.Node) string {
	p := tr.fset.Position(n.Pos())
	return fmt.Sprint(p.Filename, ":", p.Line)
}

// lines returns how many lines there are from the first of one node to the
// last of another.
func (tr *tree) lines(from, to ast.Node) int {
	return tr.fset.Position(to.End()).Line - tr.fset.Position(from.Pos()).Line + 1
}

// own shortens an import path of this project to ./agent; others stay.
func own(importPath string) string {
	if rest, ok := strings.CutPrefix(importPath, module); ok {
		return "." + rest
	}
	return importPath
}

// matches reports whether an import path is one of the patterns: a path, or a
// path and all below it with /... at its end. "std" is the standard library.
func matches(importPath string, patterns ...string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "std" {
			return !strings.Contains(first, ".")
		}
		base, below := strings.CutSuffix(p, "/...")
		return importPath == base || below && strings.HasPrefix(importPath, base+"/")
	})
}

// isBelow reports whether the file is below one of the folders.
func (f *goFile) isBelow(folders ...string) bool {
	return slices.ContainsFunc(folders, func(d string) bool { return strings.HasPrefix(f.path, d+"/") })
}

// callee returns os.Exit for a call of it, panic for a builtin, and "" for a
// call of anything that is not a name.
func callee(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return ""
	}
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		return fun.Name
	case *ast.SelectorExpr:
		if x, ok := fun.X.(*ast.Ident); ok {
			return x.Name + "." + fun.Sel.Name
		}
	}
	return ""
}
