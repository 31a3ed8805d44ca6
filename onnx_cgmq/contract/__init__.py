"""The words that all parts share: widths, plans, quantizers, forms, events. Data only."""
