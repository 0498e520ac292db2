module complement-tests

go 1.25.0
