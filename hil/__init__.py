"""Hardware in the loop without the hardware: virtual boards, their network, the demo."""
