"""Layer `monitor`: calibration, trigger, bundle and the monitor itself; never imports torch."""
