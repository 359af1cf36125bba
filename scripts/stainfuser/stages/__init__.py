"""One public function per rule; the only place where files meet mathematics."""
