// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// longOption is an option with a long and a short form.
type longOption struct {
	name   string // "": it has none
	letter byte
	arg    bool // takes an argument
}

// getopt takes a command line apart as GNU's getopt_long does: options of one
// letter can be bundled (-fl3), long ones abbreviated (--foreg) and their
// arguments given after = or as the next word, options may come after other
// words, and -- ends them.
type getopt struct {
	options []longOption // of several with a name or letter the first counts
	args    []string     // what is left
	bundle  string       // letters left of a word such as -fn
	words   []string     // what is no option
}

// badOption is an option that cannot be used. The letter is 0 for a long one
// that there is not.
type badOption struct {
	letter byte
	text   string
}

func (e *badOption) Error() string { return e.text }

// next returns the next option's letter and argument, 0 at the end.
func (g *getopt) next() (letter byte, arg string, err error) {
	if g.bundle != "" {
		return g.short()
	}
	for len(g.args) > 0 {
		word := g.args[0]
		g.args = g.args[1:]
		switch {
		case word == "--":
			g.words, g.args = append(g.words, g.args...), nil
		case strings.HasPrefix(word, "--"):
			return g.long(word[2:])
		case len(word) > 1 && word[0] == '-':
			g.bundle = word[1:]
			return g.short()
		default:
			g.words = append(g.words, word)
			if _, ok := os.LookupEnv("POSIXLY_CORRECT"); ok {
				g.words, g.args = append(g.words, g.args...), nil
			}
		}
	}
	return 0, "", nil
}

func (g *getopt) short() (letter byte, arg string, err error) {
	letter, g.bundle = g.bundle[0], g.bundle[1:]
	i := slices.IndexFunc(g.options, func(o longOption) bool { return o.letter == letter })
	if i < 0 {
		return 0, "", &badOption{letter, fmt.Sprintf("invalid option -- '%c'", letter)}
	}
	if !g.options[i].arg {
		return letter, "", nil
	}
	if g.bundle != "" {
		arg, g.bundle = g.bundle, ""
		return letter, arg, nil
	}
	if arg, ok := g.take(); ok {
		return letter, arg, nil
	}
	return 0, "", &badOption{letter, fmt.Sprintf("option requires an argument -- '%c'", letter)}
}

func (g *getopt) long(word string) (letter byte, arg string, err error) {
	name, arg, given := strings.Cut(word, "=")
	var found []longOption
	for _, o := range g.options {
		if o.name == name && name != "" {
			found = []longOption{o}
			break
		}
		if o.name != "" && strings.HasPrefix(o.name, name) && !slices.Contains(found, o) {
			found = append(found, o)
		}
	}
	if len(found) == 0 {
		return 0, "", &badOption{0, fmt.Sprintf("unrecognized option '--%s'", name)}
	}
	if len(found) > 1 {
		text := fmt.Sprintf("option '--%s' is ambiguous; possibilities:", name)
		for _, o := range found {
			text += " '--" + o.name + "'"
		}
		return 0, "", &badOption{0, text}
	}
	o := found[0]
	switch {
	case given && !o.arg:
		return 0, "", &badOption{o.letter, fmt.Sprintf("option '--%s' doesn't allow an argument", o.name)}
	case o.arg && !given:
		if arg, given = g.take(); !given {
			return 0, "", &badOption{o.letter, fmt.Sprintf("option '--%s' requires an argument", o.name)}
		}
	}
	return o.letter, arg, nil
}

// take takes the next word, whatever it looks like.
func (g *getopt) take() (string, bool) {
	if len(g.args) == 0 {
		return "", false
	}
	word := g.args[0]
	g.args = g.args[1:]
	return word, true
}

// takeIf takes the next word, or the rest of a bundle, if ok likes it: an
// argument that may be missing.
func (g *getopt) takeIf(ok func(string) bool) (string, bool) {
	if g.bundle != "" {
		arg := g.bundle
		if !ok(arg) {
			return "", false
		}
		g.bundle = ""
		return arg, true
	}
	if len(g.args) == 0 || !ok(g.args[0]) {
		return "", false
	}
	return g.take()
}
