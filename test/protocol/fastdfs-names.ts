/**
 * Names that a real FastDFS 6.16.1 gave to files, with the size and CRC32 of what was in them. Copied once and never edited: our
 * code has to agree with it, not the other way round.
 */

/** Name, size, CRC32, kind; all were stored by the server with this address in this second. */
export const GOLDEN_NAMES: readonly (readonly [string, number, number, 'plain' | 'slave' | 'appender'])[] = [
  ['M00/00/00/CucJC2sAo2mAIhoIAAAAAcRuIMg62157.a', 1, 0xc46e20c8, 'plain'],
  ['M00/00/00/CucJC2sAo2mAc4BzAAAADR3Q1ag626.txt', 13, 0x1dd0d5a8, 'plain'],
  ['M00/00/00/CucJC2sAo2mADVbeAAAAZEIrxkg9242392', 100, 0x422bc648, 'plain'],
  ['M00/00/00/CucJC2sAo2mAWVuwAAAQAFbd8iY833.jpg', 4096, 0x56ddf226, 'plain'],
  ['M00/00/00/CucJC2sAo2mACUB6AAAQATi53b4228.png', 4097, 0x38b9ddbe, 'plain'],
  ['M00/00/00/CucJC2sAo2mAKzOwAAEAAOoaJBs050.bin', 65536, 0xea1a241b, 'plain'],
  ['M00/00/00/CucJC2sAo2mANqQ3AAST4DbnOLY141.mp4', 300000, 0x36e738b6, 'plain'],
  ['M00/00/00/CucJC2sAo2mALtpPABAAANpiZps206.dat', 1048576, 0xda62669b, 'plain'],
  ['M00/00/00/CucJC2sAo2mAJff0AC3GwNUO0X8974.iso', 3000000, 0xd50ed17f, 'plain'],
  ['M00/00/00/CucJC2sAo2mANuOPAAAAMp7_nt8873.css', 50, 0x9eff9edf, 'plain'],
  ['M00/00/00/CucJC2sAo2mAfeB8AAABg-9hsJw317.htm', 387, 0xef61b09c, 'plain'],
  ['M00/00/00/CucJC2sAo2mADop6AAAC1EpmJP0100.css', 724, 0x4a6624fd, 'plain'],
  ['M00/00/00/CucJC2sAo2mAUsF5AAAEJdSsDHk939.htm', 1061, 0xd4ac0c79, 'plain'],
  ['M00/00/00/CucJC2sAo2mAVtrhAAAFdiDGW-o786.css', 1398, 0x20c65bea, 'plain'],
  ['M00/00/00/CucJC2sAo2mAWciLAAAGx19D5Ug298.htm', 1735, 0x5f43e548, 'plain'],
  ['M00/00/00/CucJC2sAo2mAZ9ipAAAIGFyh1JQ801.css', 2072, 0x5ca1d494, 'plain'],
  ['M00/00/00/CucJC2sAo2mANEC_AAAJaVIP4FY150.htm', 2409, 0x520fe056, 'plain'],
  ['M00/00/00/CucJC2sAo2mAB4eRAAAKuosVevA984.css', 2746, 0x8b157af0, 'plain'],
  ['M00/00/00/CucJC2sAo2mAYgmtAAAMCyHEXXc721.htm', 3083, 0x21c45d77, 'plain'],
  ['M00/00/00/CucJC2sAo2mAdsN-AAANXDFRjwM462.css', 3420, 0x31518f03, 'plain'],
  ['M00/00/00/CucJC2sAo2mAJUipAAAOrReycO0219.htm', 3757, 0x17b270ed, 'plain'],
  ['M00/00/00/CucJC2sAo2mAGThmAAAP_ja5mu0378.css', 4094, 0x36b99aed, 'plain'],
  ['M00/00/00/CucJC2sAo2mAWgQ-AAARTxm7U7M496.htm', 4431, 0x19bb53b3, 'plain'],
  ['M00/00/00/CucJC2sAo2mAfyzBAAASoMz4Nsg254.css', 4768, 0xccf836c8, 'plain'],
  ['M00/00/00/CucJC2sAo2mAUFBUAAAT8UtCCa4635.htm', 5105, 0x4b4209ae, 'plain'],
  ['M00/00/00/CucJC2sAo2mAIDFpAAAVQsj8vgA889.css', 5442, 0xc8fcbe00, 'plain'],
  ['M00/00/00/CucJC2sAo2mAH-VzAAAWk9ElFnM053.htm', 5779, 0xd1251673, 'plain'],
  ['M00/00/00/CucJC2sAo2mAcklLAAAX5E32FQ0742.css', 6116, 0x4df6150d, 'plain'],
  ['M00/00/00/CucJC2sAo2mAOo6WAAAZNZAIVSo566.htm', 6453, 0x9008552a, 'plain'],
  ['M00/00/00/CucJC2sAo2mALAL1AAAahgB9TOQ878.css', 6790, 0x7d4ce4, 'plain'],
  ['M00/00/00/CucJC2sAo2mAXPfLAAAb131pOLU141.htm', 7127, 0x7d6938b5, 'plain'],
  ['M00/00/00/CucJC2sAo2mARjvaAAAdKMMP8_I729.css', 7464, 0xc30ff3f2, 'plain'],
  ['M00/00/00/CucJC2sAo2mALO2aAAAeeYdPHKA493.htm', 7801, 0x874f1ca0, 'plain'],
  ['M00/00/00/CucJC2sAo2mANBLQAAAfypLQkI8883.css', 8138, 0x92d0908f, 'plain'],
  ['M00/00/00/CucJC2sAo2mAEFBdAAAhG15lN8c962.htm', 8475, 0x5e6537c7, 'plain'],
  ['M00/00/00/CucJC2sAo2mAV48LAAAibBlYvdk113.css', 8812, 0x1958bdd9, 'plain'],
  ['M00/00/00/CucJC2sAo2mAAj19AAAjvVVLMSg608.htm', 9149, 0x554b3128, 'plain'],
  ['M00/00/00/CucJC2sAo2mAKOOjAAAlDkLVKEc450.css', 9486, 0x42d52847, 'plain'],
  ['M00/00/00/CucJC2sAo2mASOYPAAAmX4QtwAU412.htm', 9823, 0x842dc005, 'plain'],
  ['M00/00/00/CucJC2sAo2mAWVuwAAAQAFbd8iY833_150x150.jpg', 777, 0xe985f6a5, 'slave'],
  ['M00/00/00/CucJC2sAo2mEC0W1AAAAADFcR3A549.log', 8000, 0x90c4807c, 'appender'],
]
export const GOLDEN_ADDRESS = '10.231.9.11'
export const GOLDEN_TIME_S = 1795203945
