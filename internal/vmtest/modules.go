// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// moduleTree knows the kernel modules of a directory. Debian's package has no modules.dep, which depmod would make at
// installation, so dependencies are read from the modules themselves.
type moduleTree struct {
	files map[string]string // module name -> file
}

func openModules(dir string) (*moduleTree, error) {
	t := &moduleTree{files: make(map[string]string)}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(p), ".ko"); ok && err == nil {
			t.files[moduleName(name)] = p
		}
		return err
	})
	return t, err
}

// moduleName is the name as the kernel spells it.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// loadOrder returns the files of the modules and of all that they depend on, what is needed first.
func (t *moduleTree) loadOrder(names ...string) ([]string, error) {
	var order []string
	seen := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if seen[name] {
			return nil
		}
		seen[name] = true
		file := t.files[name]
		if file == "" {
			return fmt.Errorf("vmtest: the kernel has no module %s", name)
		}
		deps, err := moduleDepends(file)
		if err != nil {
			return err
		}
		for _, dep := range deps {
			if err := visit(dep); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleDepends reads "depends=a,b" of the module's .modinfo section, a sequence of NUL-terminated strings.
func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s: no .modinfo", file)
	}
	data, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
