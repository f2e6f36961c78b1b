module baton.example/sandbox/pause

go 1.21
