import { cloudContract } from "../contract.ts";
import { underTest } from "./open-simulator.ts";

cloudContract({ name: "PVE simulator", open: () => underTest() });
// Before libpve-http-server 5.2.0 a refusal's text is in the reason phrase alone; privileges have 8.x's names.
cloudContract({
  name: "PVE 8.4 simulator, reasons in the reason phrase alone",
  open: () => underTest({ version: "8.4", traps: { errorStyle: "reason" } }),
});
