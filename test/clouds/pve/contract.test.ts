import { cloudContract } from "../contract.ts";
import { underTest } from "./open-simulator.ts";

cloudContract({ name: "PVE simulator", open: underTest });
