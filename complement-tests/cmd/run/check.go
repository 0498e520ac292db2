package main

import (
	"context"
	"fmt"
	"slices"

	"complement-tests/internal/suite"
)

// checkExpected runs the tests of expected.txt, and those that fail once more. The code is 0 if each passed in one of
// the two.
func (r *runner) checkExpected(ctx context.Context, expected *suite.Expected) (int, error) {
	if len(expected.Tests) == 0 {
		return 2, fmt.Errorf("expected.txt names no test")
	}
	results := suite.Results{}
	if err := r.these(ctx, expected.Tops(), results); err != nil {
		return 2, err
	}
	failing := expected.Failing(results, r.names())
	if len(failing) > 0 {
		r.list("\nFailed; they are tried once more:", failing)
		again := suite.Results{}
		if err := r.these(ctx, (&suite.Expected{Tests: failing}).Tops(), again); err != nil {
			return 2, err
		}
		for _, test := range failing {
			if again[test] == suite.Pass {
				fmt.Fprintf(r.out, "Passed at the second try: %s\n", test)
				results[test] = suite.Pass
			}
		}
	}
	failing = expected.Failing(results, r.names())
	r.list("\nFailed twice:", failing)
	news := expected.News(results)
	r.list("Passed and not in expected.txt (add them):", news)
	fmt.Fprintf(r.out, "What the tests printed: %s\n", r.logs)
	total := 0
	for _, test := range expected.Tests {
		if r.has(test.Package) {
			total++
		}
	}
	fmt.Fprintf(r.out, "%d passed, %d failed\n", total-len(failing), len(failing))
	if len(failing) > 0 {
		return 1, nil
	}
	return 0, nil
}

// these runs exactly these tests, package by package.
func (r *runner) these(ctx context.Context, tests []suite.Test, into suite.Results) error {
	for _, pkg := range r.packages {
		var own []suite.Test
		for _, test := range tests {
			if test.Package == pkg.Name {
				own = append(own, test)
			}
		}
		if len(own) == 0 {
			continue
		}
		results, err := r.one(ctx, pkg, suite.Pattern(own))
		if err != nil {
			return err
		}
		into.Replace(nil, results)
	}
	return nil
}

// names are the packages that were asked for; nil is all of them, also such as are in the list and do not exist.
func (r *runner) names() []string {
	if len(r.options.packages) == 0 {
		return nil
	}
	var names []string
	for _, pkg := range r.packages {
		names = append(names, pkg.Name)
	}
	return names
}

func (r *runner) has(name string) bool {
	names := r.names()
	return names == nil || slices.Contains(names, name)
}
