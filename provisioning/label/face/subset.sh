#!/bin/sh
# Make the label's faces from DejaVu 2.37: only Latin, Greek and Cyrillic, no hints, no kerning, so
# that PDF and browser measure alike. Usage: subset.sh FOLDER-OF-DEJAVU (needs fonttools)
set -eu
cd "$(dirname "$0")"
latin=U+0020-007E,U+00A0-024F,U+0259,U+0300-0304,U+0306-030C,U+0370-0373,U+0376-0377,\
U+037A-037F,U+0384-038A,U+038C,U+038E-03A1,U+03A3-03FF,U+0400-04FF,U+1E00-1EFF,\
U+2010-2015,U+2018-2022,U+2026,U+2030,U+2032-2033,U+2039-203A,U+2044,U+2070,U+2074-2079,\
U+2080-2089,U+20AC,U+2116,U+2122,U+2190-2193,U+2212,U+2260,U+2264-2265
subset() {
  pyftsubset "$1/$2.ttf" --unicodes="$3" --output-file="$2.ttf" --no-hinting --notdef-outline \
    --layout-features= --drop-tables+=GPOS,GSUB,GDEF,kern,FFTM --name-IDs=0,1,2,4,5,6
}
subset "$1" DejaVuSansCondensed "$latin"
subset "$1" DejaVuSansCondensed-Bold "$latin"
subset "$1" DejaVuSansMono U+0020-007E
subset "$1" DejaVuSansMono-Bold U+0020-007E
