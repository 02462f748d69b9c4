package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The examples in conf/manifests are what apply takes.
func TestExampleManifestsAreValid(t *testing.T) {
	files, err := filepath.Glob("../../conf/manifests/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no examples", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifests(text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
