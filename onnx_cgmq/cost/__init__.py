"""What a plan costs: MACs, bit operations, bytes, and the bound; one formula for all uses."""
