from trading_api.serve import main

main()
