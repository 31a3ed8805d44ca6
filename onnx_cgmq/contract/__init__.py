"""What all other folders share: widths, plans, quantizer specs, forms, events. Data only."""
