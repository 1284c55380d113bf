module example.org/you/scenario

go 1.23

require example.org/you/kero v0.0.0

replace example.org/you/kero => ./sdk/go
