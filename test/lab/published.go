package lab

// Published is a container's configuration with ports of the host that lead to it.
func Published(c Conf, ports ...map[string]any) Conf {
	return c.With("capabilities", map[string]bool{"portMappings": true}).With("runtimeConfig", map[string]any{"portMappings": ports})
}

// Port is one element of portMappings.
func Port(protocol string, host, container int) map[string]any {
	return map[string]any{"hostPort": host, "containerPort": container, "protocol": protocol}
}
