"""What a plan costs: MACs, bit operations, bytes, and the bound. One formula for learning and reports."""
